"""``python -m bench``: measure, check every answer, and print one line a figure."""

import asyncio
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.bounds import run, say
from bench.measure import Meter, Phase, start_ms
from bench.process import resident_megabytes
from bench.storm import storm
from bench.vegeta import Generator, vegeta
from bench.world import Way, World

ROUNDS = 3
SECONDS = {1: 5.0, 8: 5.0, 32: 8.0}
OPENBAO_SECONDS, OPENBAO_WARM_UP = 12.0, 4.0


@dataclass(frozen=True, slots=True)
class Rounds:
    """Phases of two ways at as many connections, taken in turns: what is noisy hits both of a round."""

    direct: list[Phase] = field(default_factory=list)
    broker: list[Phase] = field(default_factory=list)

    def ratio(self) -> float:
        """Return the median of the rounds' own ratios of the broker's rate to the direct one."""
        return self.between(lambda direct, broker: broker.per_second / direct.per_second)

    def added_p50_ms(self) -> float:
        """Return the median of what the broker adds to the middle latency in each round."""
        return self.between(lambda direct, broker: broker.p50_ms - direct.p50_ms)

    def between(self, compare: Callable[[Phase, Phase], float]) -> float:
        """Return the median over the rounds of a comparison of direct and broker."""
        return statistics.median(map(compare, self.direct, self.broker))


async def bench() -> dict[str, float]:
    """Measure everything and return the figures by name."""
    program = await asyncio.to_thread(vegeta)
    async with World.start() as world:
        folder = world.lab.folder / "bench"
        folder.mkdir()
        generator = Generator(program, folder, world.lab.processes.id)
        meter = Meter(world, generator)
        rounds = {connections: await _rounds(meter, world, connections) for connections in SECONDS}
        openbao = await meter.phase(world.openbao, 8, seconds=OPENBAO_SECONDS, warm_up=OPENBAO_WARM_UP)
        say(f"openbao, 8 connections: {openbao}")
        resident = resident_megabytes(world.broker.program.pid)
        stormed = await storm(world, generator)
        starts = [await start_ms(world.broker) for _ in range(ROUNDS)]
        say(f"starts: {starts}; {len(world.checker.seen)} answers checked, no two alike")
        rest = {"broker_rss_mb": resident, "startup_ms": statistics.median(starts)}
        return _figures(rounds, openbao) | rest | stormed


async def _rounds(meter: Meter, world: World, connections: int) -> Rounds:
    rounds = Rounds()
    for _ in range(ROUNDS):
        rounds.direct.append(await _phase(meter, world.direct, connections))
        rounds.broker.append(await _phase(meter, world.brokered, connections))
    return rounds


async def _phase(meter: Meter, way: Way, connections: int) -> Phase:
    phase = await meter.phase(way, connections, seconds=SECONDS[connections])
    say(f"{way.target.name}, {connections} connections: {phase}")
    return phase


def _figures(rounds: dict[int, Rounds], openbao: Phase) -> dict[str, float]:
    direct = {f"direct_per_second_c{n}": _rate(one.direct) for n, one in rounds.items()}
    broker = {f"broker_per_second_c{n}": _rate(one.broker) for n, one in rounds.items()}
    return {
        **direct,
        **broker,
        "openbao_per_second_c8": openbao.per_second,
        "ratio_to_openbao_c8": broker["broker_per_second_c8"] / openbao.per_second,
        "ratio_to_direct_c32": rounds[32].ratio(),
        "added_p50_ms_c1": rounds[1].added_p50_ms(),
        "broker_cpu_us_per_issuance_c32": statistics.median(phase.cpu_us for phase in rounds[32].broker),
    }


def _rate(phases: list[Phase]) -> float:
    return statistics.median(phase.per_second for phase in phases)


def main() -> int:
    """Print the figures; return 1 where an answer was wrong or nothing could be measured."""
    return run(bench())


if __name__ == "__main__":
    sys.exit(main())
