"""Watches that say nothing any more on connections that stay open: a change must not go unseen for long."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import pytest
import pytest_asyncio

from tests.support.alerted import remove
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.chaos.load import PATIENCE_SECONDS, outcome_of
from tests.support.chaos.scene import ROTATION, STATUS, Scene
from tests.support.chaos.setting import ISSUE
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.scripted import hangs

NEITHER_READ = r"(?!POST .*/token )"
"""All calls but TokenRequests."""

STALE, SUSPENDED = "503 registry_stale", "403 client_suspended"
PROMISED_SECONDS = 90.0
"""What docs/security-model.md promises, whatever the code says."""
ROUNDING_SECONDS = 1.0
"""A request that came in just in time may be answered this much later."""
SILENT_SECONDS = 180.0
"""How long it lasts at least: the watch that follows a list falls silent, too, and is given its 90 s."""
OBSERVED_SECONDS = 10.0
"""For so long after the limit everybody is asked."""


@dataclass(slots=True)
class Suspended:
    """Asks one broker for a token of a client that is suspended; ``answers`` are seconds and outcomes."""

    broker: BrokerProcess
    client: Registered
    answers: list[tuple[float, str]] = field(default_factory=list)

    async def ask(self) -> None:
        """Ask twice a second until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    reply = await self.broker.call("POST", "/v1/tokens", {}, auth=self.client.auth)
                self.answers.append((began, outcome_of(reply)))
            except (aiohttp.ClientError, TimeoutError):
                pass  # no answer is no token
            await asyncio.sleep(0.5)

    async def hears(self, outcome: str) -> None:
        """Wait until it is answered so."""

        async def so() -> bool:
            return any(answer == outcome for _, answer in self.answers)

        await until(so, what=f"{self.client.id} is answered {outcome}", seconds=PROMISED_SECONDS)

    def served_until(self) -> float:
        """Return when a request came that got a token, for the last time."""
        return max((began for began, outcome in self.answers if outcome == "200"), default=0.0)

    def after(self, moment: float) -> Counter[str]:
        """Return how requests ended that came after a moment."""
        return Counter(outcome for began, outcome in self.answers if began > moment)


@dataclass(frozen=True, slots=True)
class Later:
    """A client that is suspended after a list was read: only the next one tells of it."""

    tenant: Tenant
    client: Registered


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start two replicas, each behind a proxy of its own."""
    async with Scene.start(harmed, "half-open", replicas=2, proxied=True) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def later(standing: Scene) -> AsyncIterator[Later]:
    """Register it in a namespace of its own, and wait until both replicas serve it."""
    cluster, namespace = standing.lab.cluster, "half-open-later"
    tenant = await Tenant.create(cluster, namespace)
    client = await tenant.ready_client("later")
    for broker in standing.brokers:
        await until(partial(_serves, broker, client), what="it is served")
    yield Later(tenant, client)
    await remove(cluster, namespace)


@pytest.mark.timeout(480)
async def test_nobody_suspended_is_served_after_90_seconds(scene: Scene, later: Later) -> None:
    """Of two replicas none hears of it: one may list, and sees it then; one may only mint, and mints no more.

    The watch that the one begins after its list is as silent: what comes then is seen at its next list.
    """
    first = [Suspended(broker, scene.clients["probe"]) for broker in scene.brokers]
    second = [Suspended(broker, later.client) for broker in scene.brokers]
    async with scene.fault("watches half open; of one replica, lists hang as well"), asyncio.TaskGroup() as tasks:
        for proxy in scene.proxies:
            proxy.silence_watches()
        scene.proxies[1].hurt(NEITHER_READ, hangs())
        silent = scene.now
        await scene.tenant.patch("probe", {"suspend": True})
        asking = [tasks.create_task(watcher.ask()) for watcher in (*first, *second)]
        await first[0].hears(SUSPENDED)
        listed = scene.now
        await later.tenant.patch("later", {"suspend": True})
        await asyncio.sleep(max(silent + SILENT_SECONDS, listed + PROMISED_SECONDS + OBSERVED_SECONDS) - scene.now)
        readiness = [await _ready(broker) for broker in scene.brokers]
        for proxy in scene.proxies:
            proxy.heal()
        for task in asking:
            task.cancel()
    outcome = await scene.healed()

    for suspended, watchers in ((silent, first), (listed, second)):
        late = suspended + PROMISED_SECONDS + ROUNDING_SECONDS
        assert all(watcher.served_until() < late for watcher in watchers)
        assert watchers[0].served_until() > suspended, "nobody was served: the fault was none"
        assert {*watchers[0].after(late)} == {SUSPENDED}
        assert {*watchers[1].after(late)} == {STALE}
    assert first[1].served_until() > silent, "nobody was served: the fault was none"
    assert readiness == [True, False]
    assert STALE in outcome.seen[ISSUE]
    assert max(outcome.healed[what] for what in (STATUS, ROTATION)) < 40


async def _serves(broker: BrokerProcess, client: Registered) -> bool:
    return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).status == 200


async def _ready(broker: BrokerProcess) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"{broker.ops_url}/readyz") as answer:
        return answer.status == 200
