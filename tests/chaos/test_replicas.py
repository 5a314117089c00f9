"""Two replicas, of which the leader is cut off from the API server, or from Vault."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio

from tests.support.chaos.leading import LEASE_SECONDS, SLACK, leaders, until_leaders, until_one_leads, until_replaced
from tests.support.chaos.links import Links
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import ISSUE, ROTATED
from tests.support.lab import Lab

HANDED_OVER_SECONDS = 60.0
"""docs/leader.md: a leader that does not reach Vault makes room within this time."""

NAME, REPLICAS = "replicas", 2


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start both, each with a network of its own."""
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(Links.start(harmed)) for _ in range(REPLICAS)]
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
    """It makes room for the one that is not, which keeps the copies; who asks for tokens notices nothing."""
    first = await until_one_leads(scene)
    async with scene.fault("replica cut off from Vault while it leads"):
        scene.links[first].vault.sever()
        waited = await until_leaders(scene, 1 - first, seconds=HANDED_OVER_SECONDS + 2 * SLACK)
        await until_replaced(scene)
        scene.links[first].vault.mend()
    outcome = await scene.healed()

    assert waited < HANDED_OVER_SECONDS
    assert await leaders(scene) == [1 - first]
    assert set(outcome.seen[ISSUE]) == set(outcome.seen[ROTATED]) == {"200"}
