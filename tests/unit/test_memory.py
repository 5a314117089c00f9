"""How the process deals with its memory; in one that is made for it, for what is settled cannot be taken back."""

import asyncio
import sys
from pathlib import Path

import pytest

from broker import memory
from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.unit.test_ready import config_at

HOLES = """
import asyncio, ctypes, sys
from broker import memory

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = [ctypes.c_void_p(libc.malloc(ctypes.c_size_t(20_000))) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 20_000)
for block in blocks[::2] + blocks[1:-1:2]:
    libc.free(block)
before = megabytes()

async def a_while():
    async with asyncio.timeout(0.5):
        await memory.trim_forever()

memory.TRIM_SECONDS = float(sys.argv[1])
try:
    asyncio.run(a_while())
except TimeoutError:
    print(before - megabytes())
"""
"""40 MB of blocks, all but the last of which are freed: it keeps the heap from going back by itself."""

SERVES = """
import sys
from pathlib import Path
from broker import memory, server

memory.TRIM_SECONDS, memory._malloc_trim = 0.01, lambda: lambda: print("gives back", flush=True)
server.run(Path(sys.argv[1]))
"""

KEEPS = """
import gc
from broker import memory

memory.collect_seldom()
print(gc.get_threshold(), gc.get_freeze_count() > 0)
"""


async def said(script: str, *args: str) -> str:
    """Return the first line that a process of its own says."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *args, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            return (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_what_the_heap_does_not_need_goes_back() -> None:
    """And would not by itself."""
    given, kept = await said(HOLES, "0.1"), await said(HOLES, "60")

    assert int(given) >= 30
    assert int(kept) == 0


async def test_it_does_so_as_long_as_the_broker_serves(tmp_path: Path) -> None:
    """Whether the API server can be reached or not."""
    config = config_at(tmp_path, f"https://127.0.0.1:{free_port()}", Authority.create(tmp_path, "api").file, None)

    assert await said(SERVES, str(config)) == "gives back"


async def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no such call."""
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())

    await asyncio.wait_for(memory.trim_forever(), 1)


async def test_garbage_is_collected_seldom() -> None:
    """Not even looked at, where it was there at start."""
    assert await said(KEEPS) == "(50000, 20, 100) True"
