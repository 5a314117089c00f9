"""Watches that say nothing any more on connections that stay open: a change must not go unseen for long."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest_asyncio

from tests.support.broker import BrokerProcess, Registered
from tests.support.chaos.load import PATIENCE_SECONDS, outcome_of
from tests.support.chaos.scene import ROTATION, STATUS, Scene
from tests.support.chaos.setting import ISSUE
from tests.support.lab import Lab
from tests.support.scripted import hangs

NEITHER_READ = r"(?!POST .*/token )"
"""All calls but TokenRequests."""

STALE = "503 registry_stale"
PROMISED_SECONDS = 90.0
"""What docs/security-model.md promises, whatever the code says."""
ROUNDING_SECONDS = 1.0
"""A request that came in just in time may be answered this much later."""


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

    def served_until(self) -> float:
        """Return when a request came that got a token, for the last time."""
        return max((began for began, outcome in self.answers if outcome == "200"), default=0.0)

    def after(self, moment: float) -> Counter[str]:
        """Return how requests ended that came after a moment."""
        return Counter(outcome for began, outcome in self.answers if began > moment)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start two replicas, each behind a proxy of its own."""
    async with Scene.start(harmed, "half-open", replicas=2, proxied=True) as running:
        yield running


async def test_nobody_suspended_is_served_after_90_seconds(scene: Scene) -> None:
    """Of two replicas none hears of it: one may list, and sees it then; one may only mint, and mints no more."""
    watchers = [Suspended(broker, scene.clients["probe"]) for broker in scene.brokers]
    async with scene.fault("watches half open; of one replica, lists hang as well"), asyncio.TaskGroup() as tasks:
        for proxy in scene.proxies:
            proxy.silence_watches()
        scene.proxies[1].hurt(NEITHER_READ, hangs())
        silent = scene.now
        await scene.tenant.patch("probe", {"suspend": True})
        asking = [tasks.create_task(watcher.ask()) for watcher in watchers]
        await asyncio.sleep(PROMISED_SECONDS + 5)
        readiness = [await _ready(broker) for broker in scene.brokers]
        for proxy in scene.proxies:
            proxy.heal()
        for task in asking:
            task.cancel()
    outcome = await scene.healed()

    late = silent + PROMISED_SECONDS + ROUNDING_SECONDS
    assert all(watcher.served_until() < late for watcher in watchers)
    assert min(watcher.served_until() for watcher in watchers) > silent, "nobody was served: the fault was none"
    assert {*watchers[0].after(late)} == {"403 client_suspended"}
    assert {*watchers[1].after(late)} == {STALE}
    assert readiness == [True, False]
    assert STALE in outcome.seen[ISSUE]
    assert max(outcome.healed[what] for what in (STATUS, ROTATION)) < 40


async def _ready(broker: BrokerProcess) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"{broker.ops_url}/readyz") as answer:
        return answer.status == 200
