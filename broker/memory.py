"""How a process that serves for months deals with its memory: as fast as it may be, and without growing."""

import asyncio
import ctypes
import gc
from collections.abc import Callable
from functools import partial

TRIM_SECONDS = 60.0
"""How often free pages go back. Each time costs about a millisecond (docs/reliability.md, "A soak")."""


def collect_seldom() -> None:
    """Collect garbage seldom, and never look at what was there at start: 75 to 149 us a token (docs/performance.md)."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def trim_forever() -> None:
    """Give pages of the heap back that hold nothing any more, until cancelled; by malloc_trim(3), where glibc is.

    free(3) gives back what lies at the heap's end only. Each TLS connection has a buffer of 256 KiB, of which little is
    ever touched; where one was, smaller blocks settle that outlive it, so the heap moves on, and leaves holes behind.
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
