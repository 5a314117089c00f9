"""The Lease lies, or is not there: two replicas that both believe that they lead, and none that does."""

import json
from collections.abc import AsyncIterator
from functools import partial

import pytest_asyncio

from tests.support.chaos.leading import (
    LEASE_SECONDS,
    SLACK,
    leaders,
    until_each_writes,
    until_leaders,
    until_one_leads,
    until_replaced,
)
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import DELIVER, ISSUE, ROTATED
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.scripted import answer, says

NAME = "two-leaders"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/tokenbroker/leases"
LEASE = f"{LEASES}/{NAME}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start both, each behind a proxy."""
    async with Scene.start(harmed, NAME, replicas=2, proxied=True) as running:
        yield running


async def test_two_leaders_are_forced(scene: Scene) -> None:
    """One is told that its renewals succeed, and the other finds the Lease over: neither harms what the other does.

    Both do write the same copy in Vault: each has put a version there, or was refused because the other one had.
    """
    first = await until_one_leads(scene)
    async with scene.fault("two replicas lead, each told that it alone does"):
        _, lease = await scene.lab.cluster.request("GET", LEASE)
        scene.proxies[first].hurt(f"(GET|PUT) {LEASES}/", says(answer(200, json.dumps(lease).encode())))
        await until_leaders(scene, 0, 1, seconds=LEASE_SECONDS + 2 * SLACK)
        await until_replaced(scene)
        await until_each_writes(scene)
        both = await leaders(scene)
        scene.proxies[first].heal()
    outcome = await scene.healed()

    assert both == [0, 1]
    assert len(await leaders(scene)) == 1
    assert set(outcome.seen[ISSUE]) == set(outcome.seen[ROTATED]) == {"200"}


async def test_the_lease_is_deleted_and_given_away_by_hand(scene: Scene) -> None:
    """For some seconds nobody, or both, may lead; then one does."""
    async with scene.fault("Lease deleted, then given to somebody who is not there"):
        await scene.lab.cluster.request("DELETE", LEASE)
        await until(partial(_is_there, scene), what="the Lease is made again")
        await until_one_leads(scene)
        spec = {"holderIdentity": "nobody", "leaseDurationSeconds": LEASE_SECONDS}
        status, _ = await scene.lab.cluster.request("PATCH", LEASE, {"spec": spec})
        await until_leaders(scene)
        await until_one_leads(scene)
    outcome = await scene.healed()

    assert status == 200
    assert set(outcome.seen[ISSUE]) == set(outcome.seen[ROTATED]) == {"200"}
    assert "200" in outcome.seen[DELIVER]


async def _is_there(scene: Scene) -> bool:
    return (await scene.lab.cluster.request("GET", LEASE))[0] == 200
