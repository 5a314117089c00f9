"""The process' heap, in one that is made for it: what is settled there cannot be taken back here."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from broker import heap
from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.unit.test_ready import config_at

HOLES = """
import asyncio, ctypes, resource, sys
from broker import heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = [ctypes.c_void_p(libc.malloc(ctypes.c_size_t(20_000))) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 20_000)
for at, block in enumerate(blocks):
    if at % 10 < 9:
        libc.free(block)
before = resident()

async def a_while():
    async with asyncio.timeout(0.5):
        await heap.trim_forever()

heap.TRIM_SECONDS = float(sys.argv[1])
try:
    asyncio.run(a_while())
except TimeoutError:
    print(before - resident())
"""
"""Of 40 MB of blocks nine tenths are freed, and every tenth is kept."""

SERVES = """
import gc, sys
from pathlib import Path
from broker import heap, server

def trim():
    print(gc.get_threshold(), gc.get_freeze_count() > 0, flush=True)

heap.TRIM_SECONDS, heap._malloc_trim = 0.01, lambda: trim
server.run(Path(sys.argv[1]))
"""


@asynccontextmanager
async def running(script: str, *args: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run a script in a process of its own; yield what it says."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *args, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def given_back(trim_seconds: float) -> float:
    """Return how many megabytes of a heap with holes are given back in half a second."""
    async with running(HOLES, str(trim_seconds)) as said:
        return float(await said.readline())


async def test_what_the_heap_does_not_need_goes_back() -> None:
    """And would not by itself."""
    assert await given_back(0.1) >= 25
    assert abs(await given_back(60)) < 1


async def test_a_broker_does_so_again_and_again_and_collects_seldom(tmp_path: Path) -> None:
    """Whether the API server can be reached or not."""
    path = config_at(tmp_path, f"https://127.0.0.1:{free_port()}", Authority.create(tmp_path, "api").file, None)
    ports = {"listen": {"port": free_port()}, "ops": {"port": free_port()}}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | ports))

    async with running(SERVES, str(path)) as said:
        lines = [(await said.readline()).decode() for _ in range(3)]

    assert lines == ["(50000, 20, 100) True\n"] * 3


async def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no such call."""
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())

    trimming = asyncio.create_task(heap.trim_forever())
    await asyncio.sleep(0)

    assert trimming.done()
