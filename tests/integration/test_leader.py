"""Replicas of the real broker at the real API server: one leads, and another follows it when it ends."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from tests.support.broker import BrokerProcess
from tests.support.lab import Lab
from tests.support.marks import own_cluster
from tests.support.processes import until

DURATION = 6
LOOK = DURATION / 10
SLACK = 3.0
"""For a machine that has other things to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replicas with one Lease: ``leader`` is the one that leads at first."""

    lab: Lab
    path: str
    leader: BrokerProcess
    other: BrokerProcess

    async def holder(self) -> str:
        """Return who holds the Lease."""
        _, lease = await self.lab.cluster.request("GET", self.path)
        return str(lease["spec"]["holderIdentity"])

    async def until_replaced(self, seconds: float) -> float:
        """Wait until the other one leads, and return how long that took."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await until(lambda: leads(self.other), what="the other one leads", seconds=seconds)
        return loop.time() - started


@pytest_asyncio.fixture(loop_scope="session")
async def pair(installed: Lab) -> AsyncIterator[Pair]:
    """Run two replicas."""
    name = f"replicas-{secrets.token_hex(4)}"
    lease: dict[str, Any] = {"name": name, "duration_seconds": DURATION}
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(BrokerProcess.start(installed, f"{name}-{number}", lease=lease))
            for number in (1, 2)
        ]
        await until(lambda: leads(one), what="the first leads")
        yield Pair(installed, f"/apis/coordination.k8s.io/v1/namespaces/tokenbroker/leases/{name}", one, two)


async def test_of_two_replicas_one_leads_and_goes_on(pair: Pair) -> None:
    """Over more than two lengths of the lease, the gauges are 1 and 0, and nothing changes hands."""
    sums = set()
    for _ in range(2 * DURATION):
        sums.add((await gauge(pair.leader), await gauge(pair.other)))
        await asyncio.sleep(1)  # time itself is what is tested: that it passes and changes nothing

    assert sums == {(1.0, 0.0)}
    assert await changes(pair.leader) == (1.0, 0.0)
    assert await changes(pair.other) == (0.0, 0.0)


async def test_a_replica_that_stops_hands_over(pair: Pair) -> None:
    """After SIGTERM nobody waits for the lease to be over: the other one leads at its next look."""
    before = await pair.holder()
    await pair.leader.program.stop()
    given_back = await pair.holder()
    await pair.until_replaced(LOOK + SLACK)

    assert given_back != before
    assert await pair.holder() not in {"", before}


async def test_who_leads_is_an_event_on_the_lease(pair: Pair) -> None:
    """As `kubectl describe lease` shows it: it knows Events by the UID of their object."""
    _, lease = await pair.lab.cluster.request("GET", pair.path)
    events = "/apis/events.k8s.io/v1/namespaces/tokenbroker/events"

    async def told() -> list[str]:
        _, listed = await pair.lab.cluster.request("GET", events)
        ours = [it for it in listed["items"] if it["regarding"].get("uid") == lease["metadata"]["uid"]]
        return [f"{it['reason']}: {it['note'].partition(' ')[2]}" for it in ours]

    async def once() -> bool:
        return await told() == ["LeaderElection: became leader"]

    await until(once, what="the first leader is told of")
    await pair.leader.program.stop()
    await pair.until_replaced(LOOK + SLACK)

    async def twice() -> bool:
        return (await told()).count("LeaderElection: became leader") == 2

    await until(twice, what="the next one is told of")


async def test_a_replica_that_crashed_is_replaced(pair: Pair) -> None:
    """After kill -9 the other one leads when the lease is over, and not before the killed one's lead was."""
    await pair.leader.program.kill()
    waited = await pair.until_replaced(DURATION + LOOK + SLACK)

    assert waited > DURATION / 2


@own_cluster
async def test_a_frozen_replica_wakes_up_as_no_leader(pair: Pair) -> None:
    """SIGSTOP for longer than the lease: the other one leads, and the thawed one says 0 in its first word."""
    pair.leader.program.pause()
    try:
        await pair.until_replaced(DURATION + LOOK + SLACK)
    finally:
        pair.leader.program.resume()

    assert await gauge(pair.leader) == 0.0
    await until(lambda: told_lost(pair.leader), what="the loss is counted")
    assert await gauge(pair.other) == 1.0


@own_cluster
async def test_without_an_api_server_nobody_leads(pair: Pair) -> None:
    """The lead runs out by itself while no call is answered; when the API server is back, one leads."""
    pair.lab.cluster.api_server.pause()
    try:
        await until(lambda: told_lost(pair.leader), what="the lead is over", seconds=DURATION + SLACK)
        frozen = await gauge(pair.leader), await gauge(pair.other)
    finally:
        pair.lab.cluster.api_server.resume()

    async def one_leads() -> bool:
        return await gauge(pair.leader) + await gauge(pair.other) == 1.0

    await until(one_leads, what="one leads")
    assert frozen == (0.0, 0.0)


async def leads(broker: BrokerProcess) -> bool:
    """Tell whether a replica says that it leads."""
    return await gauge(broker) == 1.0


async def told_lost(broker: BrokerProcess) -> bool:
    """Tell whether a replica has noticed that it leads no more."""
    return (await changes(broker))[1] == 1.0


async def gauge(broker: BrokerProcess) -> float:
    """Return what a replica says about itself."""
    return await _metric(broker, "tokenbroker_leader ")


async def changes(broker: BrokerProcess) -> tuple[float, float]:
    """Return how often a replica gained and lost the lead."""
    gained, lost = [
        await _metric(broker, f'tokenbroker_leader_changes_total{{change="{change}"}} ')
        for change in ("gained", "lost")
    ]
    return gained, lost


async def _metric(broker: BrokerProcess, start: str) -> float:
    lines = (await broker.metrics()).splitlines()
    return next(float(line.removeprefix(start)) for line in lines if line.startswith(start))
