"""What ten thousand clients cost: ``python -m bench.scale [SIZE ...]``, by default 100, 1,000 and 10,000.

For each number there is a new cluster and a new Vault. Each client has one grant, which is kept in Vault, too; a
hundred clients are in a namespace, and share its account. Printed for each number N, as ``clients_N_...``:

- ``first_look_seconds``: from the start of a broker that finds all of them new until it has looked at each, made its
  anchors, written its copy in Vault and its status. ``calls_each``: the API server's count of requests meanwhile, a
  client.
- ``sync_seconds``: from the start of the next broker until ``/readyz`` is 200 and a client has a token, the median of
  three starts. ``rss_mb`` is the resident memory of the last of them then, ``settled_rss_mb`` after it has looked at
  everybody again; 10^6 bytes.

Then a second replica is started beside that one, and follows it: ``follower_start_calls_N``, its requests to the API
server until it is ready, ``follower_calls_a_minute_N``, those of the minute after that, and ``follower_rss_mb_N``, its
resident memory in the end; see :mod:`bench.follower`.

With the largest number these are printed, too. ``registry_change_seconds``: until what was changed is in force, while
the broker looks at everybody: the longest of five suspensions (from the API server's answer until the client is
refused) and five registrations (until a new client has a token). And Vault is sealed until all copies are due, twice.
``rotate_N_seconds`` is from its unsealing until the last of them has a new version, by the times that Vault gives its
versions, while nobody calls. The second time callers do, 50 times a second, and ``rotate_N_seconds_beside_callers`` is
how long it took then. ``issue_p99_ratio_while_rotating`` compares the 99th percentile of issuing in that time with the
one before Vault was sealed at all, when no copy was due and everybody had been looked at: over about as long a time,
since moments in which the API server is busy are what makes it, every 10 to 50 s. So that there is that time, copies
are good for longer than the first look should take, by what it took with the number before (:func:`renewed_after`).
Where it takes longer all the same, "before" is shorter; where less than half of it is left, the ratio is left out, and
nothing else.

What a client costs with the largest number over what it costs with the one before is ``growth_...``; see
:mod:`bench.growth`. Each figure is noted as soon as it is known, and printed also where a later one cannot be measured.
"""

import asyncio
import re
import ssl
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import aiohttp

from bench.bounds import SCALE_AT_MOST, run, say
from bench.copies import Recorded, last_written, written
from bench.errors import BenchError
from bench.fleet import Fleet
from bench.follower import follow, handed_out
from bench.growth import Grown, growth, looked_at, started_again, table
from bench.process import cpu_seconds, resident_megabytes
from bench.vegeta import Generator, Target, vegeta
from broker.model.schedule import RENEWALS_SPREAD
from tests.support.broker import BrokerProcess, Registered, basic
from tests.support.cluster import Cluster
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import until

SIZES = (100, 1000, 10_000)
STARTS, CHANGES = 3, 5
RATE, ROUND_SECONDS, ROUNDS, FEWEST_ROUNDS = 50, 10.0, 12, 6
READING_SECONDS = 1.0
"""How long it takes to read the answers of a round."""

LOOK_SECONDS_EACH = 0.06
"""How long the first look may take, a client, where no other number was measured before."""

LOOK_SLACK, SPARE_SECONDS = 1.5, 30.0
CHANGE_SECONDS, LOOKING_SECONDS, ROTATING_SECONDS = 60.0, 1800.0, 1200.0
"""How long is waited for what is measured."""

READY = re.compile(r"^tokenbroker_client_ready\{.*\} 1\.0$", re.MULTILINE)
ANSWERED = re.compile(r'^apiserver_request_total\{.*resource="([^"]*)".*\} (\S+)$', re.MULTILINE)
NOT_OURS = {"leases", "leasecandidates", "subjectaccessreviews"}


@dataclass(frozen=True, slots=True)
class Rotated:
    """What rotating all copies at once costs."""

    rotate_seconds: float
    rotate_seconds_beside_callers: float
    rounds_before: int
    """In how many rounds issuing was measured before any copy was due."""
    issue_p99_before: float | None
    """In seconds; None where these rounds are too few to be compared with."""
    issue_p99_meanwhile: float
    cpu_ms_each: Mapping[str, float]
    """By program, while nobody calls."""

    def figures(self, size: int) -> dict[str, float]:
        """Return them by name; ``size`` is the number of copies."""
        figures = {
            f"rotate_{size}_seconds": self.rotate_seconds,
            f"rotate_{size}_seconds_beside_callers": self.rotate_seconds_beside_callers,
        }
        if self.issue_p99_before is None:
            return figures
        return figures | {"issue_p99_ratio_while_rotating": self.issue_p99_meanwhile / self.issue_p99_before}


async def scale(figures: dict[str, float], sizes: tuple[int, ...] = SIZES) -> dict[str, float]:
    """Measure each number of clients, and return all figures. Each is in ``figures`` as soon as it is known.

    Raises BenchError, and ProgramError where a program fails or takes too long.
    """
    program = await asyncio.to_thread(vegeta)
    costs: dict[int, Grown] = {}
    for size in sizes:
        async with Lab.start() as lab:
            await install(lab.cluster)
            async with Fleet.of(lab.cluster, renewed_after(size, costs)) as fleet:
                folder = lab.folder / "scale"
                folder.mkdir()
                bench = _Scale(lab, fleet, Generator(program, folder, lab.processes.id), size, figures)
                costs[size] = await bench.measure(largest=size == max(sizes))
        say(f"{size} clients: {costs[size]}")
    for line in table(costs):
        say(line)
    figures.update(growth(costs))
    return figures


def renewed_after(size: int, costs: Mapping[int, Grown]) -> int:
    """Return for how many seconds copies are good: for longer than the first look at so many clients and issuing take.

    ``costs`` are those of the numbers measured before: as long as the look took at the largest of them, a client, and
    half as long again it may take now. So none is due while issuing alone is measured; see
    :func:`broker.model.schedule.renewal_time`.
    """
    each = LOOK_SECONDS_EACH
    if costs:
        largest = max(costs)
        each = costs[largest].first_look_seconds / largest * LOOK_SLACK
    return round((SPARE_SECONDS + size * each + ROUNDS * ROUND_SECONDS) / (1 - RENEWALS_SPREAD))


def rounds_until(due: float, now: float) -> int:
    """Return how many rounds end before the first copy is due, ROUNDS at most; both by the monotonic clock."""
    return max(0, min(ROUNDS, int((due - now) / (ROUND_SECONDS + READING_SECONDS))))


class _Scale:
    """One number of clients."""

    def __init__(self, lab: Lab, fleet: Fleet, generator: Generator, size: int, figures: dict[str, float]) -> None:
        self._lab = lab
        self._fleet = fleet
        self._generator = generator
        self._size = size
        self._figures = figures
        self._written_at = 0.0
        """When the last copy had a new version, by the monotonic clock."""

    async def measure(self, *, largest: bool) -> Grown:
        """Measure what so many cost, with the largest number also rotating all copies.

        Raises BenchError and ProgramError.
        """
        started = time.monotonic()
        await self._fleet.grow(self._size)
        say(f"{self._size} clients registered in {time.monotonic() - started:.0f} s")
        first_look, calls = await self._looked_at(rotating=largest)
        starts = [await self._started(f"start-{number}") for number in range(STARTS - 1)]
        started = time.monotonic()
        async with self._broker("second") as broker:
            await handed_out(broker, self._client(self._size // 2))
            starts.append(time.monotonic() - started)
            resident = resident_megabytes(broker.program.pid)
            self._note(started_again(self._size, statistics.median(starts), resident))
            changed = await self._changes(broker)
            await self._until_all(broker)
            grown = Grown(
                first_look_seconds=round(first_look, 2),
                calls=round(calls, 2),
                sync_seconds=round(statistics.median(starts), 2),
                rss_mb=round(resident, 2),
                settled_rss_mb=round(resident_megabytes(broker.program.pid), 2),
                change_seconds=round(changed, 2),
            )
            self._note(grown.figures(self._size) | ({"registry_change_seconds": changed} if largest else {}))
            followed = await follow(self._lab, _lease("second"), self._client(self._size - 1))
        grown = replace(grown, followed=followed)
        self._note(grown.figures(self._size))
        return grown

    def _note(self, figures: Mapping[str, float]) -> None:
        """Keep figures that are known, whatever becomes of the rest."""
        self._figures.update(figures)

    async def _started(self, name: str) -> float:
        """Return how long a broker takes from its start until a client has a token of it, and end it."""
        started = time.monotonic()
        async with self._broker(name) as broker:
            await handed_out(broker, self._client(self._size // 2))
            return time.monotonic() - started

    async def _looked_at(self, *, rotating: bool) -> tuple[float, float]:
        """Return for how long a broker looks at all for the first time, and by how many calls, a client."""
        before, started = await _calls(self._lab.cluster), time.monotonic()
        async with self._broker("first") as broker:
            await self._until_all(broker, copies=self._size)
            self._written_at = time.monotonic()
            first_look = self._written_at - started
            calls = (await _calls(self._lab.cluster) - before) / self._size
            self._note(looked_at(self._size, first_look, calls))
            if rotating:
                rotated = await self._rotated(broker, started)
                say(f"{self._size} clients: {rotated}")
                self._note(rotated.figures(self._size))
        return first_look, calls

    def _broker(self, name: str) -> AbstractAsyncContextManager[BrokerProcess]:
        return BrokerProcess.start(self._lab, name, log_level="warning", lease=_lease(name))

    def _client(self, number: int) -> Registered:
        return Registered(self._fleet.id(number), self._fleet.secret)

    async def _until_all(self, broker: BrokerProcess, copies: int = 0) -> None:
        """Wait until everybody is ready by the broker's own word, and so many copies were written."""

        async def reached() -> bool:
            await asyncio.sleep(1 + self._size / 5000)  # a page of ten thousand clients takes the broker time
            page = await broker.metrics()
            return len(READY.findall(page)) >= self._size - CHANGES and written(page) >= copies

        await until(reached, what="everybody was looked at", seconds=LOOKING_SECONDS, programs=[broker.program])

    async def _changes(self, broker: BrokerProcess) -> float:
        """Return the longest time until a change was in force."""
        times = []
        for number in range(CHANGES):
            name = await self._fleet.add(f"new-{number}")
            times.append(await self._until_answered(broker, name, 200))
            await self._fleet.patch(number, {"spec": {"suspend": True}})
            times.append(await self._until_answered(broker, self._fleet.id(number), 403))
        return max(times)

    async def _until_answered(self, broker: BrokerProcess, client: str, status: int) -> float:
        started = time.monotonic()
        headers = {"Authorization": basic(client, self._fleet.secret)}
        async with aiohttp.ClientSession(headers=headers) as session:

            async def answered() -> bool:
                async with session.post(f"{broker.url}/v1/tokens", json={}) as answer:
                    return answer.status == status

            what = f"{client} is answered with {status}"
            await until(answered, what=what, seconds=CHANGE_SECONDS, programs=[broker.program], pause=0.01)
        return time.monotonic() - started

    async def _rotated(self, broker: BrokerProcess, started: float) -> Rotated:
        """Return what rotating costs; the broker was ``started`` then, by the monotonic clock."""
        rounds = rounds_until(started + self._fleet.renewed_after * (1 - RENEWALS_SPREAD), time.monotonic())
        before = [latency for _ in range(rounds) for latency in await self._issued(broker)]
        if rounds < ROUNDS:
            say(f"copies were due early: issuing before that was measured in {rounds} rounds, not in {ROUNDS}")
        seconds, each = await self._rotated_alone(broker)
        self._note({f"rotate_{self._size}_seconds": seconds})
        beside, meanwhile = await self._rotated_beside_callers(broker)
        return Rotated(
            rotate_seconds=round(seconds, 2),
            rotate_seconds_beside_callers=round(beside, 2),
            rounds_before=rounds,
            issue_p99_before=_p99(before) if rounds >= FEWEST_ROUNDS else None,
            issue_p99_meanwhile=_p99(meanwhile),
            cpu_ms_each=each,
        )

    async def _rotated_alone(self, broker: BrokerProcess) -> tuple[float, dict[str, float]]:
        """Return how long rotating all takes while nobody calls, and what it costs each program."""
        await self._all_due()
        used = self._used(broker)
        since, recorded = await self._begun(broker)
        await recorded
        now = self._used(broker)
        each = {name: round((now[name] - used[name]) / self._size * 1000, 2) for name in now}
        return await self._written_since(since), each

    async def _rotated_beside_callers(self, broker: BrokerProcess) -> tuple[float, list[float]]:
        """Return how long rotating all takes while callers come, and how long answers took meanwhile."""
        await self._all_due()
        since, recorded = await self._begun(broker)
        latencies: list[float] = []
        while not recorded.done():
            latencies += await self._issued(broker)
        await recorded
        return await self._written_since(since), latencies

    async def _all_due(self) -> None:
        """Seal Vault, and wait until all copies are due."""
        await self._lab.vault.seal()
        await asyncio.sleep(self._written_at + self._fleet.renewed_after - time.monotonic())

    async def _begun(self, broker: BrokerProcess) -> tuple[datetime, asyncio.Task[None]]:
        """Let Vault be back; return since when, and what ends when there is a record of a new version of each copy.

        Vault itself is asked after that only: to read ten thousand copies would be in the way of renewing them.
        """
        recorded, since = Recorded(broker.audit_file), datetime.now(UTC)
        await self._lab.vault.unseal()
        return since, asyncio.create_task(self._until_recorded(broker, recorded))

    async def _until_recorded(self, broker: BrokerProcess, recorded: Recorded) -> None:
        async def reached() -> bool:
            await asyncio.sleep(0.2)
            return recorded.count() >= self._size

        await until(reached, what="all copies were renewed", seconds=ROTATING_SECONDS, programs=[broker.program])

    async def _written_since(self, since: datetime) -> float:
        """Wait until Vault has a new version of each copy, and return after how many seconds the last one came."""
        clients = map(self._fleet.id, range(self._size))
        last = await last_written(self._lab.vault, clients, since, ROTATING_SECONDS)
        self._written_at = time.monotonic()
        return (last - since).total_seconds()

    def _used(self, broker: BrokerProcess) -> dict[str, float]:
        """Return the seconds of CPU that each program has used so far."""
        cluster = self._lab.cluster
        programs = (cluster.api_server, cluster.etcd, self._lab.vault.program, broker.program)
        return {program.name: cpu_seconds(program.pid) for program in programs}

    async def _issued(self, broker: BrokerProcess) -> list[float]:
        """Return how long answers took for some time."""
        headers = {"Authorization": basic(*self._client(self._size - 1).auth), "Content-Type": "application/json"}
        target = Target("issue", f"{broker.url}/v1/tokens", headers, b"{}")
        results = await self._generator.attack(target, 32, ROUND_SECONDS, RATE)
        hits = [hit async for hit in self._generator.hits(results)]
        wrong = [hit for hit in hits if hit.status != 200]
        if wrong:
            first = wrong[0]
            raise BenchError(f"{len(wrong)} of {len(hits)} got no token, such as: {first.status} {first.body[:200]!r}")
        return [hit.latency for hit in hits]


def _lease(name: str) -> dict[str, Any]:
    return {"name": name, "duration_seconds": 15}


def _p99(latencies: list[float]) -> float:
    return round(statistics.quantiles(latencies, n=100)[98], 5)


async def _calls(cluster: Cluster) -> float:
    """Return how many requests the API server has answered, but for those that have nothing to do with clients."""
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))
    headers = {"Authorization": f"Bearer {cluster.admin_token}"}
    url = f"{cluster.server}/metrics"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url, ssl=trust) as page:
        counts = ANSWERED.findall(await page.text())
    return sum(float(count) for resource, count in counts if resource not in NOT_OURS)


def main() -> int:
    """Print the figures; return 1 where they could not be measured."""
    figures: dict[str, float] = {}
    sizes = tuple(int(word) for word in sys.argv[1:]) or SIZES
    return run(scale(figures, sizes), figures, wanted=SCALE_AT_MOST if sizes == SIZES else ())


if __name__ == "__main__":
    sys.exit(main())
