"""The API server or its store goes, hangs, or is not there yet."""

from collections.abc import AsyncIterator

import aiohttp
import pytest_asyncio

from tests.support.chaos.ledger import NO_ANSWER
from tests.support.chaos.scene import ROTATION, STATUS, SUSPENSION, Scene
from tests.support.chaos.setting import DELIVER, ISSUE, KUBERNETES_SECONDS, SINGLE
from tests.support.lab import Lab
from tests.support.processes import until

UNAVAILABLE, TIMEOUT = "503 kubernetes_unavailable", "504 kubernetes_timeout"
STARTING = "503 broker_not_authorized"
"""An API server that has just started knows no roles yet, and says 403."""

ASKED = (ISSUE, SINGLE, DELIVER)
SOON, LATER = 15.0, 30.0
"""Bounds for a busy machine, in seconds; what was measured is in docs/reliability.md."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start a broker that speaks to the API server itself."""
    async with Scene.start(harmed, "api-server") as running:
        yield running


async def test_api_server_is_killed_and_started_again(scene: Scene) -> None:
    """Callers are told so at once, and nobody has to start the broker again."""
    cluster = scene.lab.cluster
    async with scene.fault("API server killed, started again"):
        await cluster.api_server.kill()
        await scene.sees(ISSUE, UNAVAILABLE, times=10)
        cluster.api_server.start()
        await cluster.ready()
    outcome = await scene.healed()

    assert seen(scene, ISSUE) <= {"200", UNAVAILABLE, TIMEOUT, STARTING}
    assert outcome.slowest[ISSUE] < KUBERNETES_SECONDS + 2
    assert max(outcome.healed[what] for what in ASKED) < SOON
    assert max(outcome.healed[what] for what in (STATUS, ROTATION)) < LATER


async def test_api_server_is_paused_and_goes_on(scene: Scene) -> None:
    """It costs callers the time that the broker gives the API server, and not a second once it goes on."""
    api_server = scene.lab.cluster.api_server
    async with scene.fault("API server paused (SIGSTOP)"):
        api_server.pause()
        try:
            await scene.sees(ISSUE, TIMEOUT, times=3)
            await scene.sees(SINGLE, TIMEOUT)
        finally:
            api_server.resume()
    outcome = await scene.healed()

    assert seen(scene, ISSUE) <= {"200", TIMEOUT}
    assert outcome.slowest[ISSUE] < KUBERNETES_SECONDS + 2
    assert max(outcome.healed[what] for what in ASKED) < SOON
    assert max(outcome.healed[what] for what in (STATUS, ROTATION)) < LATER


async def test_etcd_is_paused_and_goes_on(scene: Scene) -> None:
    """The API server looks each account up there, so nothing is issued; nobody waits longer than the broker lets it."""
    etcd = scene.lab.cluster.etcd
    async with scene.fault("etcd paused (SIGSTOP)"):
        etcd.pause()
        try:
            await scene.sees(SINGLE, TIMEOUT, times=3)
        finally:
            etcd.resume()
    outcome = await scene.healed()

    assert seen(scene, SINGLE) <= {"200", UNAVAILABLE, TIMEOUT}
    assert max(outcome.slowest[what] for what in (ISSUE, SINGLE)) < 2 * KUBERNETES_SECONDS + 2
    assert max(outcome.healed[what] for what in ASKED) < SOON
    assert max(outcome.healed[what] for what in (STATUS, ROTATION)) < LATER


async def test_broker_is_started_before_the_api_server(scene: Scene) -> None:
    """It lives, is not ready, and says why, until there is an API server; then it needs nobody's help."""
    cluster, broker = scene.lab.cluster, scene.broker
    async with scene.fault("API server comes after the broker"):
        await broker.program.stop()
        await cluster.api_server.kill()
        broker.program.start()
        await until(lambda: _alive(broker.ops_url), what="the broker lives", programs=(broker.program,))
        readiness = await _asked(broker.ops_url + "/readyz")
        await scene.sees(ISSUE, "503 registry_stale", times=5)
        cluster.api_server.start()
        await cluster.ready()
    outcome = await scene.healed()

    assert readiness[0] == 503
    assert readiness[1].startswith("registry_stale: registered clients")
    assert seen(scene, ISSUE) <= {"200", NO_ANSWER, "503 registry_stale", "503 anchor_missing", "503 policy_missing"}
    assert max(outcome.healed[what] for what in ASKED) < LATER
    assert outcome.healed[SUSPENSION] < SOON


def seen(scene: Scene, what: str) -> set[str]:
    """Return how calls of a kind that began during the fault ended."""
    return {*scene.outcome.seen[what]}


async def _asked(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def _alive(ops_url: str) -> bool:
    try:
        return (await _asked(f"{ops_url}/livez"))[0] == 200
    except aiohttp.ClientError:
        return False
