"""An API server, or what stands before it, that refuses, breaks watches off, or shows another certificate."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.certificates import Authority
from tests.support.chaos.report import Outcome
from tests.support.chaos.scene import ROTATION, STATUS, SUSPENSION, Scene
from tests.support.chaos.setting import DELIVER, ISSUE, SINGLE
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.scripted import answer, says

UNAVAILABLE = "503 kubernetes_unavailable"
MINTS, ANCHORS, LISTS, WATCHES = "POST .*/token ", "(POST|DELETE) .*/secrets", "GET .*[?]limit=", "GET .*[?]watch=1"
BUSY = says(answer(429, json.dumps({"kind": "Status", "code": 429}).encode(), [b"Retry-After: 1"]))
FAILING = says(answer(500, json.dumps({"kind": "Status", "code": 500}).encode()))
FAULT_SECONDS = 6.0
REMEMBERED_SECONDS = 13.0
"""More than how long the API server remembers that a token was good: 10 s."""
SOON, LATER = 15.0, 40.0
"""Bounds for a busy machine, in seconds; what was measured is in docs/reliability.md."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start a broker behind a proxy."""
    async with Scene.start(harmed, "api-answers", proxied=True) as running:
        yield running


@pytest.fixture(autouse=True)
def _faultless_afterwards(scene: Scene) -> Iterator[None]:
    yield
    scene.proxy.heal()


async def test_token_requests_are_answered_429(scene: Scene) -> None:
    """Callers get a 503 that says when to come back, at once; nothing piles up."""
    async with scene.fault("TokenRequests answered 429"):
        scene.proxy.hurt(MINTS, BUSY)
        await asyncio.sleep(FAULT_SECONDS)
        scene.proxy.heal()
    outcome = await scene.healed()

    assert seen(outcome, ISSUE) == seen(outcome, SINGLE) == {UNAVAILABLE}
    assert healed_soon(outcome)


async def test_everything_is_answered_500(scene: Scene) -> None:
    """The lead is lost for want of a Lease, and taken again; callers are told to come back."""
    async with scene.fault("everything answered 500"):
        scene.proxy.hurt(".*", FAILING)
        scene.proxy.cut_watches()
        await asyncio.sleep(FAULT_SECONDS)
        scene.proxy.heal()
    outcome = await scene.healed()

    assert seen(outcome, ISSUE) == seen(outcome, SINGLE) == {UNAVAILABLE}
    assert healed_soon(outcome)


async def test_anchors_are_answered_429_and_500(scene: Scene) -> None:
    """Only tokens that need a new anchor have to wait: those of grants that share one go on."""
    async with scene.fault("anchors answered 429 and 500"):
        for reply in (BUSY, FAILING):
            scene.proxy.heal()
            scene.proxy.hurt(ANCHORS, reply)
            await asyncio.sleep(FAULT_SECONDS / 2)
        scene.proxy.heal()
    outcome = await scene.healed()

    assert seen(outcome, ISSUE) == {"200"}
    assert seen(outcome, SINGLE) == {UNAVAILABLE}
    assert healed_soon(outcome)


async def test_lists_are_answered_429_and_500(scene: Scene) -> None:
    """The broker goes on with what it knows, for as long as that counts."""
    async with scene.fault("watches ended, lists answered 429 and 500"):
        for reply in (BUSY, FAILING):
            scene.proxy.heal()
            scene.proxy.hurt(f"{LISTS}|{WATCHES}", reply)
            scene.proxy.cut_watches()
            await asyncio.sleep(FAULT_SECONDS / 2)
        scene.proxy.heal()
    outcome = await scene.healed()

    assert uninterrupted(outcome)
    assert healed_soon(outcome)


async def test_watches_break_again_and_again(scene: Scene) -> None:
    """Nobody notices, and a change is in force all the same."""
    async with scene.fault("watches broken off, every 0.5 s"):
        for _ in range(int(FAULT_SECONDS / 0.5)):
            scene.proxy.cut_watches()
            await asyncio.sleep(0.5)
    outcome = await scene.healed()

    assert uninterrupted(outcome)
    assert healed_soon(outcome)


async def test_resource_version_is_too_old(scene: Scene) -> None:
    """The API server's own 410, to each watch: the broker lists anew, not in a storm, and callers do not notice."""
    await until_first_versions_are_forgotten(scene)
    before = await restarts(scene, "gone")

    async def refused() -> bool:
        return await restarts(scene, "gone") >= before + 2

    async with scene.fault("resource version too old (410), each time"):
        scene.proxy.rewrite(rb"(?<=watch=1)(\S*[?&]resourceVersion=)\d+", rb"\g<1>1")
        scene.proxy.cut_watches()
        await asyncio.sleep(FAULT_SECONDS)
        await until(refused, what="watches were refused", seconds=60)
        scene.proxy.heal()
    times = await restarts(scene, "gone") - before
    outcome = await scene.healed()

    assert times <= 4 * outcome.lasted
    assert uninterrupted(outcome)
    assert healed_soon(outcome)


async def test_certificate_of_another_authority(scene: Scene) -> None:
    """The CA file holds the new authority when the server shows its certificate: callers do not notice."""
    authority = new_authority(scene, "second-authority")
    async with scene.fault("API server's certificate and CA replaced"):
        scene.proxy.ca_file.write_bytes(authority.file.read_bytes())
        scene.proxy.show(authority)
        await asyncio.sleep(FAULT_SECONDS / 2)
    outcome = await scene.healed()

    assert uninterrupted(outcome)
    assert healed_soon(outcome)


async def test_certificate_of_an_authority_that_the_file_does_not_hold_yet(scene: Scene) -> None:
    """Nothing is sent to a server that nobody vouches for; nobody has to start the broker when somebody does."""
    authority = new_authority(scene, "third-authority")
    async with scene.fault("API server's certificate replaced, the CA file later"):
        scene.proxy.show(authority)
        await scene.sees(ISSUE, UNAVAILABLE, times=5)
        scene.proxy.ca_file.write_bytes(authority.file.read_bytes())
    outcome = await scene.healed()

    assert healed_soon(outcome)


async def test_own_token_is_rotated(scene: Scene) -> None:
    """The file holds a new token when the API server does not take the old one any more: callers do not notice."""
    bound_to = await use_a_token_that_can_end(scene)
    async with scene.fault("the broker's own token replaced, the old one invalid"):
        token_file(scene).write_text(await scene.lab.cluster.token_for("tokenbroker", "tokenbroker"))
        await scene.lab.cluster.request("DELETE", bound_to)
        await asyncio.sleep(REMEMBERED_SECONDS)
    outcome = await scene.healed()

    assert uninterrupted(outcome)
    assert healed_soon(outcome)


async def test_own_token_ends_before_the_file_holds_another(scene: Scene) -> None:
    """Callers are told to come back, and are served as soon as it does."""
    bound_to = await use_a_token_that_can_end(scene)
    async with scene.fault("the broker's own token invalid, the file replaced later"):
        await scene.lab.cluster.request("DELETE", bound_to)
        await scene.sees(ISSUE, UNAVAILABLE, times=5)
        token_file(scene).write_text(await scene.lab.cluster.token_for("tokenbroker", "tokenbroker"))
    outcome = await scene.healed()

    assert healed_soon(outcome)


def new_authority(scene: Scene, name: str) -> Authority:
    """Make an authority."""
    folder = scene.lab.folder / name
    folder.mkdir()
    return Authority.create(folder, name)


async def until_first_versions_are_forgotten(scene: Scene) -> None:
    """Start the API server again where it was not: it remembers all changes since its start, and none before."""
    cluster, path = scene.lab.cluster, "/apis/tokenbroker.dev/v1alpha1/tokenclients?watch=1&resourceVersion=1"
    _, answer = await cluster.request("GET", f"{path}&timeoutSeconds=1")
    if "too old resource version" not in str(answer):
        await cluster.api_server.stop()
        cluster.api_server.start()
        await cluster.ready()
        await scene.sees(ISSUE, "200", times=3)


def token_file(scene: Scene) -> Path:
    """Return where the broker's own token is."""
    return scene.lab.folder / "api-answers-0" / "token"


async def use_a_token_that_can_end(scene: Scene) -> str:
    """Start the broker again with a token that ends with a Secret, and return the path of that."""
    cluster, core = scene.lab.cluster, "/api/v1/namespaces/tokenbroker"
    _, secret = await cluster.request("POST", f"{core}/secrets", {"metadata": {"generateName": "own-token-"}})
    name, uid = secret["metadata"]["name"], secret["metadata"]["uid"]
    bound = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}
    spec = {"expirationSeconds": 3600, "boundObjectRef": bound}
    status, body = await cluster.request("POST", f"{core}/serviceaccounts/tokenbroker/token", {"spec": spec})
    assert status == 201, body
    await scene.broker.program.kill()
    token_file(scene).write_text(body["status"]["token"])
    scene.broker.program.start()
    await scene.sees(ISSUE, "200", times=3)
    return f"{core}/secrets/{name}"


async def restarts(scene: Scene, reason: str) -> float:
    """Return how often watches had to begin anew."""
    start = f'tokenbroker_watch_restarts_total{{reason="{reason}"}} '
    lines = (await scene.broker.metrics()).splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def seen(outcome: Outcome, what: str) -> set[str]:
    """Return how calls of a kind that began during the fault ended."""
    return {*outcome.seen[what]}


def uninterrupted(outcome: Outcome) -> bool:
    """Tell whether every caller got what it asked for, all the while."""
    return all(seen(outcome, what) == {"200"} for what in (ISSUE, SINGLE, DELIVER))


def healed_soon(outcome: Outcome) -> bool:
    """Tell whether calls went well, a change was in force, and status and copies in Vault followed soon after."""
    asked = max(outcome.healed[what] for what in (ISSUE, SINGLE, DELIVER, SUSPENSION))
    return asked < SOON and max(outcome.healed[what] for what in (STATUS, ROTATION)) < LATER
