"""Two replicas: the leader is cut off from the API server, or from Vault, and Vault is away from both.

Their tokens live for a tenth of what they ask for, so that copies in Vault come to their end while a fault lasts.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest_asyncio

from tests.support.chaos.leading import LEASE_SECONDS, SLACK, leaders, until_leaders, until_one_leads
from tests.support.chaos.links import Links
from tests.support.chaos.overdue import Overdue
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import DELIVER, ISSUE, ROTATED
from tests.support.chaos.short_tokens import SHORTENED, ShorteningProxy
from tests.support.lab import Lab

HANDED_OVER_SECONDS = 60.0
"""Within this a leader that does not reach Vault makes room, where the Lease lasts 5 s, as here.

docs/reliability.md has 46 s, as measured so. The 45 to 65 s of docs/leader.md are for a Lease of 15 s.
"""

REST_SECONDS = 15.0
"""For so long a copy is good when Vault is back: it expires unless it is renewed within this time."""

NAME, REPLICAS = "replicas", 2


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start both, each with a network of its own."""
    folder = harmed.folder / f"{NAME}-proxy"
    folder.mkdir()
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(ShorteningProxy.start(harmed.cluster, folder))
        links = [await stack.enter_async_context(Links.start(harmed, proxy)) for _ in range(REPLICAS)]
        each = [one.sections(harmed, f"{NAME}-{number}") for number, one in enumerate(links)]
        running = await stack.enter_async_context(Scene.start(harmed, NAME, replicas=REPLICAS, each=each))
        running.links = links
        yield running


async def test_a_leader_is_cut_off_from_the_api_server(scene: Scene) -> None:
    """What it sends is lost without a word: the other one leads when the Lease is over, and issues all along."""
    first = await until_one_leads(scene)
    async with scene.fault("replica cut off from the API server while it leads"):
        scene.links[first].kubernetes.hold_up()
        waited = await until_leaders(scene, 1 - first, seconds=LEASE_SECONDS + 2 * SLACK)
        await scene.sees(ISSUE, "200", times=5)
        scene.links[first].kubernetes.sever()
        scene.links[first].kubernetes.mend()
    outcome = await scene.healed()

    assert waited < LEASE_SECONDS + SLACK
    assert outcome.seen[ISSUE]["200"] > 0


async def test_a_leader_is_cut_off_from_vault(scene: Scene) -> None:
    """It makes room for one that is not, which renews the copy that came due before it expires; callers notice nothing.

    The copy lives for 80 s, and is due after 29 to 32.
    """
    first = await until_one_leads(scene)
    copy = await Overdue.written(scene, ttl=80 * SHORTENED, renew_before=48 * SHORTENED)
    async with scene.fault("replica cut off from Vault while it leads"):
        cut = datetime.now(UTC)
        scene.links[first].vault.sever()
        waited = await until_leaders(scene, 1 - first, seconds=HANDED_OVER_SECONDS + SLACK)
        await copy.replaced(cut)
        scene.links[first].vault.mend()
    outcome = await scene.healed()

    assert waited < HANDED_OVER_SECONDS
    assert await leaders(scene) == [1 - first]
    assert set(outcome.seen[ISSUE]) == set(outcome.seen[ROTATED]) == {"200"}


async def test_vault_is_sealed_until_a_copy_is_nearly_over(scene: Scene) -> None:
    """The copy came due meanwhile, and is renewed within the time that is left.

    It lives for 60 s, and is due after 30 to 33.
    """
    copy = await Overdue.written(scene, ttl=60 * SHORTENED, renew_before=27 * SHORTENED)
    async with scene.fault("Vault sealed until a copy that is due is nearly over"):
        await scene.lab.vault.seal()
        await asyncio.sleep(copy.rest - REST_SECONDS)  # the time is what is tested
        over = datetime.now(UTC)
        await scene.lab.vault.unseal()
    took = await copy.replaced(over)
    outcome = await scene.healed()

    assert took < REST_SECONDS
    assert set(outcome.seen[ISSUE]) == {"200"}
    assert outcome.seen[DELIVER]["503 vault_unavailable"] > 0
