"""What a storm of one client costs another: ``python -m bench.neighbour``.

A quiet client asks for a token 20 times a second, on a schedule that waits for no answer, while another asks as fast
as 64 connections can. ``noisy_neighbour_p99_ratio`` is the 99th percentile of the quiet client's latency then, over the
same while nobody storms; median over the rounds. It has two parts. One is waiting behind the other's calls: the gate
bounds that. The other is what the API server takes longer for when it has work: on a machine whose cores it shares with
the load generator, the quiet client is slower by as much as the calls that are made at a time, however fair its turn
is. So these are printed, too:

- ``noisy_neighbour_p99_ratio_ungated``: the same with a broker that makes 128 calls at a time, as if it had no gate.
- ``noisy_neighbour_growth``: the 99th percentile while 256 connections storm, over that while 64 do, and
  ``_ungated``. It is 1 where how much a neighbour storms makes no difference.
"""

import asyncio
import statistics
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.bounds import run, say
from bench.errors import BenchError
from bench.vegeta import Generator, Hit, Target, vegeta
from tests.support.broker import BrokerProcess, Registered, Tenant, basic
from tests.support.installed import install
from tests.support.lab import Lab

NAMESPACE, ACCOUNT = "neighbours", "reader"
ROUNDS, SECONDS, RATE = 3, 10.0, 20
STORMS = (0, 64, 256)
"""By how many connections; nobody storms at first."""

HEAD_START_SECONDS = 1.0
UNGATED = {"concurrency": 128, "waiting": 100_000, "waiting_per_client": 100_000, "wait_seconds": 300}


@dataclass(frozen=True, slots=True)
class Street:
    """Two clients of one broker."""

    name: str
    broker: BrokerProcess
    quiet: Registered
    noisy: Registered

    def target(self, client: Registered, kind: str) -> Target:
        """Return what a client asks."""
        headers = {"Authorization": basic(*client.auth), "Content-Type": "application/json"}
        return Target(f"{self.name}-{kind}", f"{self.broker.url}/v1/tokens", headers, b"{}")


@dataclass(frozen=True, slots=True)
class Heard:
    """What a quiet client noticed of a storm. Times are in milliseconds; ``storm`` is answers a second."""

    p50: float
    p99: float
    storm: float


async def neighbour(lab: Lab, generator: Generator) -> dict[str, float]:
    """Measure with the gate and without it, in turns, and return the figures. Raises BenchError."""
    tenant = await Tenant.create(lab.cluster, NAMESPACE)
    async with (
        BrokerProcess.start(lab, "gated", log_level="warning") as gated,
        BrokerProcess.start(lab, "ungated", log_level="warning", queue=UNGATED) as ungated,
    ):
        await tenant.account(ACCOUNT)
        clients = [await tenant.client(name, {"serviceAccount": {"name": ACCOUNT}}) for name in ("quiet", "noisy")]
        streets = [Street("gated", gated, *clients), Street("ungated", ungated, *clients)]
        for street in streets:
            await _served(street)
        heard: dict[tuple[str, int], list[Heard]] = {}
        for _ in range(ROUNDS):
            for street in streets:
                for connections in STORMS:
                    one = await _listen(generator, street, connections)
                    say(f"{street.name}, {connections} connections storm: {one}")
                    heard.setdefault((street.name, connections), []).append(one)
    return _figures(heard)


def _figures(heard: dict[tuple[str, int], list[Heard]]) -> dict[str, float]:
    alone, storm, larger = STORMS
    figures = {}
    for name, suffix in (("gated", ""), ("ungated", "_ungated")):
        figures[f"noisy_neighbour_p99_ratio{suffix}"] = _ratio(heard[name, storm], heard[name, alone])
        figures[f"noisy_neighbour_growth{suffix}"] = _ratio(heard[name, larger], heard[name, storm])
    return figures


def _ratio(some: list[Heard], others: list[Heard]) -> float:
    return statistics.median(one.p99 / other.p99 for one, other in zip(some, others, strict=True))


async def _served(street: Street) -> None:
    """Wait until both get tokens of this broker."""
    for client in (street.quiet, street.noisy):
        await street.broker.until_ready(client.id)


async def _listen(generator: Generator, street: Street, connections: int) -> Heard:
    async with asyncio.TaskGroup() as tasks:
        storm = tasks.create_task(_storm(generator, street, connections)) if connections else None
        await asyncio.sleep(HEAD_START_SECONDS)
        results = await generator.attack(street.target(street.quiet, "quiet"), 64, SECONDS, RATE)
    latencies = [hit.latency async for hit in _answers(generator, results, {200})]
    cuts = statistics.quantiles(latencies, n=100)
    return Heard(round(cuts[49] * 1e3, 2), round(cuts[98] * 1e3, 2), round(storm.result() if storm else 0))


async def _storm(generator: Generator, street: Street, connections: int) -> float:
    seconds = SECONDS + 2 * HEAD_START_SECONDS
    results = await generator.attack(street.target(street.noisy, "noisy"), connections, seconds)
    answers = [hit.status async for hit in _answers(generator, results, {200, 503})]  # what is too much may be refused
    return answers.count(200) / seconds


async def _answers(generator: Generator, results: Path, expected: set[int]) -> AsyncIterator[Hit]:
    async for hit in generator.hits(results):
        if hit.status not in expected:
            raise BenchError(f"status {hit.status} {hit.error} {hit.body[:300]!r}")
        yield hit


async def _alone() -> dict[str, float]:
    program = await asyncio.to_thread(vegeta)
    async with Lab.start() as lab:
        await install(lab.cluster)
        folder = lab.folder / "neighbours"
        folder.mkdir()
        return await neighbour(lab, Generator(program, folder, lab.processes.id))


def main() -> int:
    """Print the figures; return 1 where they could not be measured."""
    return run(_alone())


if __name__ == "__main__":
    sys.exit(main())
