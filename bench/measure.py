"""The measurements: phases of load with every answer checked, and starts of the broker."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.errors import BenchError
from bench.process import cpu_seconds
from bench.vegeta import Generator
from bench.world import Way, World
from tests.support.broker import BrokerProcess

_POLL_SECONDS = 0.005
_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase of load showed: all its answers were right tokens.

    ``cpu_us`` is what the broker used for one answer, in microseconds; only of use where it was asked.
    """

    answers: int
    per_second: float
    p50_ms: float
    cpu_us: float


class Meter:
    """Runs phases against a world."""

    def __init__(self, world: World, generator: Generator) -> None:
        self._world = world
        self._generator = generator

    async def phase(self, way: Way, connections: int, *, seconds: float, warm_up: float = 1.0) -> Phase:
        """Measure for so long after a warm-up, whose answers are checked too. Raises BenchError for a wrong one."""
        warming = await self._generator.attack(way.target, connections, warm_up)
        await self._read(warming, way)
        pid = self._world.broker.program.pid
        before = cpu_seconds(pid)
        results = await self._generator.attack(way.target, connections, seconds)
        used = cpu_seconds(pid) - before
        starts, latencies = zip(*await self._read(results, way), strict=True)
        ends = [start + latency for start, latency in zip(starts, latencies, strict=True)]
        count = len(starts)
        return Phase(
            answers=count,
            per_second=count / (max(ends) - min(starts)),
            p50_ms=statistics.median(latencies) * 1e3,
            cpu_us=used / count * 1e6,
        )

    async def _read(self, results: Path, way: Way) -> list[tuple[float, float]]:
        times, wrong, example = [], 0, ""
        async for hit in self._generator.hits(results):
            times.append((hit.at, hit.latency))
            problem = self._world.checker.problem(hit, way.expected)
            if problem:
                wrong, example = wrong + 1, problem
        if wrong or not times:
            raise BenchError(f"{way.target.name}: {wrong} of {len(times)} answers are wrong, such as: {example}")
        return times


async def start_ms(broker: BrokerProcess) -> float:
    """Start the broker again and return the milliseconds from its exec until /readyz answers 200."""
    await broker.program.stop()
    async with aiohttp.ClientSession() as session, asyncio.timeout(_START_SECONDS):
        started = time.perf_counter()
        broker.program.start()
        while True:
            if await _ready(session, broker):
                return (time.perf_counter() - started) * 1e3
            await asyncio.sleep(_POLL_SECONDS)


async def _ready(session: aiohttp.ClientSession, broker: BrokerProcess) -> bool:
    try:
        async with session.get(broker.ops_url + "/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
