"""Rotation lets callers go first, for a moment at each call, and finishes what it has begun."""

import asyncio

import pytest

from broker.model.audit_record import Origin
from broker.model.decision import Allowed
from broker.model.token import Anchor, MintedToken
from broker.services.rotation.courtesy import (
    LATELY_SECONDS,
    STAND_BACK_SECONDS,
    AtATime,
    CourteousMinter,
    CourteousStore,
    Turns,
    at_once,
)
from tests.support.rotation import KEY, PLACE, World, client


class Busy:
    """Implements Callers: notes what was asked for, in the order of all that happens."""

    def __init__(self) -> None:
        self.happened: list[object] = []
        self.callers = False

    async def quiet(self, seconds: float) -> None:
        """Note that somebody stands back."""
        self.happened.append(seconds)

    def lately(self, seconds: float) -> bool:
        """Tell what a test says."""
        assert seconds == LATELY_SECONDS
        return self.callers


class Minting:
    """Implements BelowMinter: mints nothing."""

    def __init__(self, busy: Busy) -> None:
        self.busy = busy

    async def mint_below(self, client: object, allowed: object, anchor: object) -> MintedToken:
        """Note what was asked for."""
        self.busy.happened.append((client, allowed, anchor))
        raise LookupError


async def test_a_token_is_minted_after_the_callers() -> None:
    """Of what was asked for."""
    busy, owner = Busy(), client()
    allowed, anchor = Allowed(owner.grants[0], "x", 600), Anchor("a", "u")
    with pytest.raises(LookupError):
        await CourteousMinter(Minting(busy), busy).mint_below(owner, allowed, anchor)

    assert busy.happened == [STAND_BACK_SECONDS, (owner, allowed, anchor)]


async def test_looks_and_versions_stand_back_and_what_completes_a_version_does_not() -> None:
    """A version without its label is one that the next broker has to mend."""
    world, busy = World(), Busy()
    store, path = CourteousStore(world.vault, busy), PLACE.path(KEY)
    version = await store.write(path, {"token": "x"}, cas=0)
    found = await store.inspect(path)
    before = list(busy.happened)
    names = await store.children(path[:-1])
    await store.remove(path)

    assert version == 1
    assert found is not None
    assert found.current_version == 1
    assert names == [path[-1]]
    assert before == busy.happened == [STAND_BACK_SECONDS] * 2
    assert await world.vault.inspect(path) is None


async def test_who_does_it_for_a_caller_does_not_stand_back() -> None:
    """Nor does it wait for a turn among what is done behind callers."""
    world, busy = World(), Busy()
    store = CourteousStore(world.vault, busy)
    with at_once():
        await store.inspect(PLACE.path(KEY))
    at_once_happened = list(busy.happened)
    await store.inspect(PLACE.path(KEY))

    assert (at_once_happened, busy.happened) == ([], [STAND_BACK_SECONDS])


async def test_a_delivery_is_a_callers_and_a_copy_that_nobody_wants_goes_at_once() -> None:
    """Renewing one is neither."""
    world, busy = World(), Busy()
    world.registry.put(client())
    world.restart(store=CourteousStore(world.vault, busy))
    await world.rotator.deliver(client(), "default", Origin("r"))
    delivered = list(busy.happened)
    await world.visit()
    renewed = list(busy.happened)
    del world.registry.known[KEY.client]
    await world.visit()

    assert delivered == []
    assert len(renewed) > 0
    assert busy.happened == renewed


class Crowd:
    """Calls that take turns, and end when a test says so."""

    def __init__(self) -> None:
        self.busy, self.under_way, self.most = Busy(), 0, 0
        self.turns = Turns(self.busy, AtATime(2, 4))
        self.over = asyncio.Semaphore(0)

    async def call(self) -> None:
        """Make one call."""
        async with self.turns.turn():
            self.under_way += 1
            await self.over.acquire()
            self.under_way -= 1

    async def end(self, calls: int) -> None:
        """Let so many calls end, and the next ones begin."""
        for _ in range(calls):
            self.over.release()
        await asyncio.sleep(0.01)


async def test_few_calls_are_made_at_a_time_while_callers_come_and_more_when_none_do() -> None:
    """Whoever waits for a turn hears of it with the next one that is over."""
    crowd = Crowd()
    crowd.busy.callers = True
    calls = [asyncio.create_task(crowd.call()) for _ in range(12)]
    await crowd.end(0)
    counts = [crowd.under_way]
    await crowd.end(1)
    counts.append(crowd.under_way)
    crowd.busy.callers = False
    await crowd.end(1)
    counts.append(crowd.under_way)
    crowd.busy.callers = True
    await crowd.end(1)
    counts.append(crowd.under_way)
    await crowd.end(12)
    await asyncio.gather(*calls)

    assert counts == [2, 2, 4, 3]
    assert crowd.under_way == 0


async def test_a_call_that_fails_or_is_given_up_leaves_its_turn_to_the_next() -> None:
    """Nobody waits for ever."""
    crowd = Crowd()
    first = [asyncio.create_task(crowd.call()) for _ in range(4)]
    await crowd.end(0)
    waiting = [asyncio.create_task(crowd.call()) for _ in range(4)]
    await crowd.end(0)
    for one in (*first, waiting[0]):
        one.cancel()
    await crowd.end(0)
    crowd.under_way -= len(first)
    begun = crowd.under_way
    await crowd.end(3)

    assert begun == 3
    assert all(one.done() and not one.cancelled() for one in waiting[1:])
