"""Who waits for a turn at the API server gets what he may have when it comes, not what he might have had before."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from broker.errors import BrokerError, Reason
from broker.model.client import Proofs
from broker.model.limits import NamespaceLimits
from tests.support.endings import SINGLY, TOGETHER, WEB, EndingWorld, web
from tests.support.gates import WIDE


@pytest.fixture
async def world() -> EndingWorld:
    """Return a world whose client can have tokens."""
    world = EndingWorld()
    world.register(web())
    await world.settle()
    await world.settle()
    return world


async def after_a_wait(world: EndingWorld, meanwhile: Callable[[EndingWorld], None], grant: str) -> tuple[str, str]:
    """Return what a request gets in whose wait something happens that the broker hears of, and has not visited yet."""
    async with AsyncExitStack() as others:
        for number in range(WIDE.concurrency):
            await others.enter_async_context(world.gate.turn(number))
        asked = asyncio.create_task(world.issue(grant_name=grant))
        await asyncio.sleep(0)
        assert world.gate.waiting == 1
        meanwhile(world)
    return await asked


def _suspended(world: EndingWorld) -> None:
    it = world.cluster.resources[WEB]
    it.client = replace(it.client, suspended=True)


def _over(world: EndingWorld) -> None:
    it = world.cluster.resources[WEB]
    it.client = replace(it.client, not_after=world.clock.now())


def _proved_otherwise(world: EndingWorld) -> None:
    it = world.cluster.resources[WEB]
    it.client = replace(it.client, proofs=Proofs(secret_digests=(b"new",)))


def _gone(world: EndingWorld) -> None:
    del world.cluster.resources[WEB]


def _not_allowed(world: EndingWorld) -> None:
    world.limits = NamespaceLimits(opted_in=False)


def _unknown(world: EndingWorld) -> None:
    world.labels_known = False


@pytest.mark.parametrize("grant", [SINGLY, TOGETHER])
@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [
        (_suspended, Reason.CLIENT_SUSPENDED),
        (_over, Reason.CLIENT_EXPIRED),
        (_proved_otherwise, Reason.ANCHOR_MISSING),
        (_gone, Reason.INVALID_CLIENT),
        (_not_allowed, Reason.GRANT_FORBIDDEN),
        (_unknown, Reason.REGISTRY_STALE),
    ],
)
async def test_who_waited_for_a_turn_is_decided_on_anew(
    world: EndingWorld, meanwhile: Callable[[EndingWorld], None], reason: Reason, grant: str
) -> None:
    """Nothing is minted, also before the broker has ended anything: a replica that follows ends nothing at all."""
    before = len(world.cluster.tokens)

    with pytest.raises(BrokerError) as refused:
        await after_a_wait(world, meanwhile, grant)

    assert refused.value.reason is reason
    assert len(world.cluster.tokens) == before


async def test_who_waited_gets_a_token_where_nothing_happened(world: EndingWorld) -> None:
    """A status that was written meanwhile is no reason to come again."""

    def nothing(world: EndingWorld) -> None:
        it = world.cluster.resources[WEB]
        it.client = replace(it.client)

    assert world.accepts((await after_a_wait(world, nothing, TOGETHER))[1])
