"""Bringing a copy up to date: what is asked before a token is made for it, and which copy comes first."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin
from broker.model.limits import NamespaceLimits
from broker.model.stored_copy import StoredCopy
from tests.support.rotation import KEY, PLACE, RULES, World, client, grant


@pytest.fixture
def world() -> World:
    """Return a world with one client that wants a copy."""
    world = World()
    world.registry.put(client())
    return world


async def _first_visit(world: World) -> None:
    await world.visit()


async def _delivery(world: World) -> None:
    await world.rotator.deliver(client(), "default", Origin("r"))


@pytest.mark.parametrize("ask", [_first_visit, _delivery])
async def test_nothing_is_written_where_nobody_knows_what_is_allowed(
    world: World, ask: Callable[[World], Awaitable[None]]
) -> None:
    """The labels of the namespace are too old: no token is made for a first version, whoever asks for it."""

    def unknown(_namespace: str) -> NamespaceLimits:
        raise BrokerError(Reason.REGISTRY_STALE, "labels")

    world.restart(replace(RULES, limits=unknown))
    with pytest.raises(BrokerError, match="registry_stale"):
        await ask(world)

    assert not world.vault.entries
    assert not world.cluster.tokens
    assert not world.audit.records


async def test_a_delivery_for_a_grant_that_was_not_looked_at_asks_nobody_about_anchors(world: World) -> None:
    """None is made, not even for a moment."""
    world.registry.book.forget(KEY.client)
    world.power.calls = []

    with pytest.raises(BrokerError, match="anchor_missing"):
        await _delivery(world)

    assert not {"ensure", "find", "delete"} & set(world.power.calls)


async def test_a_grant_that_was_looked_at_is_visited_before_all_that_was_planned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of copies those that were planned may take minutes."""
    world.registry.put(client(grants=(grant(), grant(name="other"))))
    looked: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
    inspect = world.vault.inspect

    async def noted(path: tuple[str, ...]) -> StoredCopy | None:
        looked.put_nowait(path)
        return await inspect(path)

    monkeypatch.setattr(world.vault, "inspect", noted)
    world.rotator.changed(KEY.client)
    world.rotator.queue.forget(KEY)
    world.rotator.prepared(KEY.client, "default")
    running = asyncio.create_task(world.rotator.queue.run())
    first = await asyncio.wait_for(looked.get(), 10)
    running.cancel()

    assert first == PLACE.path(KEY)
