"""The process' heap: garbage is collected seldom, and pages that hold nothing go back to the kernel."""

import asyncio
import ctypes
import gc
from collections.abc import Callable
from functools import partial

TRIM_SECONDS = 60.0
"""How often pages go back: 1 ms for a heap of 25 MB, 20 to 30 ms once after ten thousand callers with TLS have gone."""


def collect_seldom() -> None:
    """Collect garbage seldom, and never look at what was there at start: 75 to 149 us a token (docs/performance.md)."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def trim_forever() -> None:
    """Give pages of the heap back that hold nothing, until cancelled: malloc_trim(3), where the C library is glibc.

    It gives back by itself what lies at the heap's end, and large blocks that it had mapped; but it stops mapping
    blocks of a size when the first of that size is freed. uvloop and the ssl module make one of 256 KiB for each TLS
    connection and for each read, and touch little of it. Where one was, smaller blocks settle, and the heap is left
    with holes (docs/reliability.md, "A soak").
    """
    trim = _malloc_trim()
    while trim is not None:
        await asyncio.sleep(TRIM_SECONDS)
        trim()


def _malloc_trim() -> Callable[[], object] | None:
    try:
        return partial(ctypes.CDLL(None).malloc_trim, ctypes.c_size_t(0))
    except AttributeError:
        return None  # another C library, as Alpine's
