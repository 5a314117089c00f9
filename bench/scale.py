"""What ten thousand clients cost: ``python -m bench.scale [SIZE ...]``, by default 100, 1,000 and 10,000.

For each number there is a new cluster and a new Vault. Each client has one grant, which is kept in Vault, too; a
hundred clients are in a namespace, and share its account. Printed for each number:

- ``first_look_seconds``: from the start of a broker that finds all of them new until it has looked at each, made its
  anchors, written its copy in Vault and its status. ``calls``: the API server's count of requests meanwhile, a client.
- ``sync_seconds``: from the start of the next broker until ``/readyz`` is 200 and a client has a token. ``rss_mb`` is
  its resident memory then, ``settled_rss_mb`` after it has looked at everybody again; 10^6 bytes.
- ``change_seconds``: until what was changed is in force, while it looks at everybody: the longest of five suspensions
  (from the API server's answer until the client is refused) and five registrations (until a new client has a token).

With the largest number, Vault is sealed until all copies are due, twice. ``rotate_seconds`` is from its unsealing until
all of them have a new version, while nobody calls. The second time callers do, 50 times a second, and
``rotate_seconds_beside_callers`` is how long it took then. ``issue_p99_ratio`` compares the 99th percentile of issuing
in that time with the one before Vault was sealed at all, when no copy was due and everybody had been looked at: over
about as long a time, since moments in which the API server is busy are what makes it, every 10 to 50 s.

What a client costs with the largest number over what it costs with the one before is ``growth_first_look``,
``growth_calls`` and ``growth_rss``; see :mod:`bench.growth`.
"""

import asyncio
import re
import ssl
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp

from bench.bounds import run, say
from bench.errors import BenchError
from bench.fleet import Fleet
from bench.growth import Grown, growth
from bench.process import cpu_seconds, resident_megabytes
from bench.vegeta import Generator, Target, vegeta
from broker.model.schedule import RENEWALS_SPREAD
from tests.support.broker import BrokerProcess, Registered, basic
from tests.support.cluster import Cluster
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import until

SIZES = (100, 1000, 10_000)
CHANGES = 5
RATE, ROUND_SECONDS, ROUNDS = 50, 10.0, 12
LOOKING_SECONDS, ROTATING_SECONDS = 1800.0, 1200.0
READY = re.compile(r"^tokenbroker_client_ready\{.*\} 1\.0$", re.MULTILINE)
ANSWERED = re.compile(r'^apiserver_request_total\{.*resource="([^"]*)".*\} (\S+)$', re.MULTILINE)
WRITTEN = b'"delivery":"vault"'
NOT_OURS = {"leases", "leasecandidates", "subjectaccessreviews"}


@dataclass(frozen=True, slots=True)
class Rotated:
    """What rotating all copies at once costs."""

    rotate_seconds: float
    issue_p99_ratio: float
    issue_p99_ms_before: float
    rotate_seconds_beside_callers: float
    cpu_ms_each: Mapping[str, float]
    """By program, while nobody calls."""


async def scale(sizes: tuple[int, ...] = SIZES) -> dict[str, float]:
    """Measure each number of clients, and return the figures of the largest, and what grew. Raises BenchError."""
    program = await asyncio.to_thread(vegeta)
    figures: dict[str, float] = {}
    costs: dict[int, Grown] = {}
    for size in sizes:
        async with Lab.start() as lab:
            await install(lab.cluster)
            async with Fleet.of(lab.cluster, _renewed_after(size)) as fleet:
                folder = lab.folder / "scale"
                folder.mkdir()
                bench = _Scale(lab, fleet, Generator(program, folder, lab.processes.id), size)
                grown, rotated = await bench.measure(rotating=size == max(sizes))
        say(f"{size} clients: {grown}")
        costs[size] = grown
        if rotated is not None:
            figures = _figures(size, grown, rotated)
    return figures | growth(costs)


def _renewed_after(size: int) -> int:
    """Return for how many seconds copies are good: for longer than the first look at so many clients and issuing take.

    So none is due while issuing alone is measured; see :func:`broker.model.schedule.renewal_time`.
    """
    return round((30 + size * 0.042 + ROUNDS * ROUND_SECONDS) / (1 - RENEWALS_SPREAD))


def _figures(size: int, grown: Grown, rotated: Rotated) -> dict[str, float]:
    return {
        f"clients_{size}_sync_seconds": grown.sync_seconds,
        f"clients_{size}_rss_mb": grown.rss_mb,
        f"clients_{size}_settled_rss_mb": grown.settled_rss_mb,
        f"clients_{size}_first_look_seconds": grown.first_look_seconds,
        f"rotate_{size}_seconds": rotated.rotate_seconds,
        f"rotate_{size}_seconds_beside_callers": rotated.rotate_seconds_beside_callers,
        "registry_change_seconds": grown.change_seconds,
        "issue_p99_ratio_while_rotating": rotated.issue_p99_ratio,
    }


class _Scale:
    """One number of clients."""

    def __init__(self, lab: Lab, fleet: Fleet, generator: Generator, size: int) -> None:
        self._lab = lab
        self._fleet = fleet
        self._generator = generator
        self._size = size
        self._written_at = 0.0
        """When the last copy had a new version, by the monotonic clock."""

    async def measure(self, *, rotating: bool) -> tuple[Grown, Rotated | None]:
        started = time.monotonic()
        await self._fleet.grow(self._size)
        say(f"{self._size} clients registered in {time.monotonic() - started:.0f} s")
        before = await _calls(self._lab.cluster)
        started = time.monotonic()
        async with self._broker("first") as broker:
            await self._until_all(broker, written=self._size)
            self._written_at = time.monotonic()
            first_look = self._written_at - started
            calls = (await _calls(self._lab.cluster) - before) / self._size
            rotated = await self._rotated(broker, started) if rotating else None
        started = time.monotonic()
        async with self._broker("second") as broker:
            await self._token(broker)
            synced, resident = time.monotonic() - started, resident_megabytes(broker.program.pid)
            changed = await self._changes(broker)
            await self._until_all(broker)
            settled = resident_megabytes(broker.program.pid)
        grown = Grown(*(round(it, 2) for it in (first_look, calls, synced, resident, settled, changed)))
        return grown, rotated

    def _broker(self, name: str) -> AbstractAsyncContextManager[BrokerProcess]:
        return BrokerProcess.start(self._lab, name, log_level="warning", lease={"name": name, "duration_seconds": 15})

    async def _until_all(self, broker: BrokerProcess, written: int = 0) -> None:
        """Wait until everybody is ready by the broker's own word, and so many versions were written."""
        versions = Written(broker)

        async def reached() -> bool:
            await asyncio.sleep(1 + self._size / 5000)  # a page of ten thousand clients takes the broker time
            ready = len(READY.findall(await broker.metrics()))
            return ready >= self._size - CHANGES and versions.count() >= written

        await until(reached, what="everybody was looked at", seconds=LOOKING_SECONDS, programs=[broker.program])

    async def _token(self, broker: BrokerProcess) -> None:
        client = Registered(self._fleet.id(self._size // 2), self._fleet.secret)
        reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        if reply.status != 200:
            raise BenchError(f"a broker that is ready answered {reply.status}: {reply.body}")

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
        async with aiohttp.ClientSession(headers=headers) as session, asyncio.timeout(60):
            while True:
                async with session.post(f"{broker.url}/v1/tokens", json={}) as answer:
                    if answer.status == status:
                        return time.monotonic() - started
                await asyncio.sleep(0.01)

    async def _rotated(self, broker: BrokerProcess, started: float) -> Rotated:
        alone = _p99([latency for _ in range(ROUNDS) for latency in await self._issued(broker)])
        if time.monotonic() > started + self._fleet.renewed_after * (1 - RENEWALS_SPREAD):
            raise BenchError("the first copies were due before issuing alone had been measured")
        seconds, each = await self._rotated_alone(broker)
        await self._all_due()
        rotating = await self._begun(broker)
        meanwhile: list[float] = []
        while not rotating.done():
            meanwhile += await self._issued(broker)
        ratio = round(_p99(meanwhile) / alone, 2)
        rotated = Rotated(seconds, ratio, round(alone * 1000, 1), round(rotating.result(), 2), each)
        say(f"{self._size} clients: {rotated}")
        return rotated

    async def _rotated_alone(self, broker: BrokerProcess) -> tuple[float, dict[str, float]]:
        """Return how long rotating all takes while nobody calls, and what it costs each program."""
        await self._all_due()
        used = self._used(broker)
        seconds = await (await self._begun(broker))
        now = self._used(broker)
        return round(seconds, 2), {name: round((now[name] - used[name]) / self._size * 1000, 2) for name in now}

    async def _all_due(self) -> None:
        await self._lab.vault.seal()
        await asyncio.sleep(self._written_at + self._fleet.renewed_after - time.monotonic())

    async def _begun(self, broker: BrokerProcess) -> asyncio.Task[float]:
        """Let Vault be back, and return what ends when all copies have a new version."""
        written = Written(broker)
        wanted, started = written.count() + self._size, time.monotonic()
        await self._lab.vault.unseal()
        return asyncio.create_task(self._rotation(broker, written, wanted, started))

    async def _rotation(self, broker: BrokerProcess, written: "Written", wanted: int, started: float) -> float:
        async def reached() -> bool:
            await asyncio.sleep(0.2)
            return written.count() >= wanted

        await until(reached, what="all copies were renewed", seconds=ROTATING_SECONDS, programs=[broker.program])
        self._written_at = time.monotonic()
        return self._written_at - started

    def _used(self, broker: BrokerProcess) -> dict[str, float]:
        """Return the seconds of CPU that each program has used so far."""
        cluster = self._lab.cluster
        programs = (cluster.api_server, cluster.etcd, self._lab.vault.program, broker.program)
        return {program.name: cpu_seconds(program.pid) for program in programs}

    async def _issued(self, broker: BrokerProcess) -> list[float]:
        """Return how long answers took for some time."""
        client = self._fleet.id(self._size - 1)
        headers = {"Authorization": basic(client, self._fleet.secret), "Content-Type": "application/json"}
        target = Target("issue", f"{broker.url}/v1/tokens", headers, b"{}")
        results = await self._generator.attack(target, 32, ROUND_SECONDS, RATE)
        hits = [hit async for hit in self._generator.hits(results)]
        wrong = [hit for hit in hits if hit.status != 200]
        if wrong:
            first = wrong[0]
            raise BenchError(f"{len(wrong)} of {len(hits)} got no token, such as: {first.status} {first.body[:200]!r}")
        return [hit.latency for hit in hits]


class Written:
    """Counts the versions that the audit log of a broker tells of; what was read once is not read again."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._file = broker.audit_file
        self._read = self._counted = 0

    def count(self) -> int:
        """Return how many there are."""
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._read)
                lines, end, _ = file.read().rpartition(b"\n")
            self._read += len(lines) + len(end)
            self._counted += lines.count(WRITTEN)
        return self._counted


def _p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


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
    return run(scale(tuple(int(word) for word in sys.argv[1:]) or SIZES))


if __name__ == "__main__":
    sys.exit(main())
