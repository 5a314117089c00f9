"""What goes on behind callers lets them go first, for a moment at each call, and finishes what it has begun."""

import asyncio

import pytest

from broker.model.audit_record import Origin
from broker.model.decision import Allowed
from broker.model.token import Anchor, MintedToken
from broker.services.courtesy import (
    FEW,
    HELD_SECONDS,
    LATELY_SECONDS,
    PATIENCE_SECONDS,
    STAND_BACK_SECONDS,
    Kind,
    Turns,
    at_once,
)
from broker.services.rotation.behind_callers import CourteousMinter, CourteousStore
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
        await CourteousMinter(Minting(busy), Turns(busy)).mint_below(owner, allowed, anchor)

    assert busy.happened == [STAND_BACK_SECONDS, (owner, allowed, anchor)]


async def test_looks_and_versions_stand_back_and_what_completes_a_version_does_not() -> None:
    """A version without its label is one that the next broker has to mend."""
    world, busy = World(), Busy()
    store, path = CourteousStore(world.vault, Turns(busy)), PLACE.path(KEY)
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
    store = CourteousStore(world.vault, Turns(busy))
    with at_once():
        await store.inspect(PLACE.path(KEY))
    at_once_happened = list(busy.happened)
    await store.inspect(PLACE.path(KEY))

    assert (at_once_happened, busy.happened) == ([], [STAND_BACK_SECONDS])


async def test_a_delivery_is_a_callers_and_a_copy_that_nobody_wants_goes_at_once() -> None:
    """Renewing one is neither."""
    world, busy = World(), Busy()
    world.registry.put(client())
    world.restart(store=CourteousStore(world.vault, Turns(busy)))
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
    """Calls of two kinds that take turns, and end when a test says so."""

    def __init__(self, *, callers: bool, patience: float = PATIENCE_SECONDS) -> None:
        self.busy = Busy()
        self.busy.callers = callers
        self.turns = Turns(self.busy, patience)
        self.kinds = {"mint": Kind(2), "write": Kind(3)}
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        """Let calls come, one after the other; the name of each begins with its kind."""
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._call(name))
            await asyncio.sleep(0)
        await self.settle()

    async def end(self, *names: str) -> None:
        """Let calls end, and the next ones begin."""
        for name in names:
            self.ends[name].set()
            await self.settle()

    async def settle(self) -> None:
        """Let begin what may."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def _call(self, name: str) -> None:
        async with self.turns.turn(self.kinds[name.split(maxsplit=1)[0]]):
            self.begun.append(name)
            await self.ends[name].wait()


async def test_one_call_is_made_at_a_time_while_callers_come() -> None:
    """Of whatever kind, and who came first goes first."""
    assert FEW == 1
    crowd = Crowd(callers=True)
    await crowd.come("mint 1", "write 1", "mint 2", "write 2")
    begun = [list(crowd.begun)]
    for name in ("mint 1", "write 1", "mint 2"):
        await crowd.end(name)
        begun.append(list(crowd.begun))

    assert begun == [["mint 1", "write 1", "mint 2", "write 2"][: 1 + number] for number in range(4)]


async def test_as_many_of_each_kind_are_made_at_a_time_as_it_bears_while_no_callers_come() -> None:
    """One kind that has no room holds up no other."""
    crowd = Crowd(callers=False)
    await crowd.come("mint 1", "mint 2", "mint 3", "write 1", "write 2", "write 3", "write 4")
    before = list(crowd.begun)
    await crowd.end("mint 2")
    await crowd.end("write 3")

    assert before == ["mint 1", "mint 2", "write 1", "write 2", "write 3"]
    assert crowd.begun[len(before) :] == ["mint 3", "write 4"]


async def test_what_is_late_or_presses_goes_on_as_if_no_callers_came() -> None:
    """Late by as much as there is patience for; it is seen with the next call that comes or is over."""
    crowd = Crowd(callers=True, patience=7.0)
    crowd.turns.late = lambda: 6.9
    await crowd.come("write 1", "write 2", "write 3", "write 4")
    patient = list(crowd.begun)
    crowd.turns.late = lambda: 7.0
    await crowd.end("write 1")
    late = list(crowd.begun)
    crowd.turns.late = lambda: 0.0
    await crowd.come("mint 1", "mint 2")
    in_time = list(crowd.begun)
    crowd.turns.pressing = lambda: True
    await crowd.come("mint 3")

    assert patient == ["write 1"]
    assert late == in_time == ["write 1", "write 2", "write 3", "write 4"]
    assert crowd.begun == [*late, "mint 1", "mint 2"]


async def test_when_callers_come_no_more_all_who_wait_go_on() -> None:
    """They hear of it with the next call that is over; one that comes then overtakes nobody."""
    crowd = Crowd(callers=True)
    await crowd.come("write 1", "write 2", "mint 1", "mint 2")
    crowd.busy.callers = False
    await crowd.come("write 3")
    begun = list(crowd.begun)
    crowd.busy.callers = True
    await crowd.come("write 4")
    await crowd.end("write 1", "write 2", "write 3", "mint 1")
    still = list(crowd.begun)
    await crowd.end("mint 2")

    assert sorted(begun) == ["mint 1", "mint 2", "write 1", "write 2", "write 3"]
    assert still == begun
    assert crowd.begun == [*begun, "write 4"]


async def test_a_call_that_fails_or_is_given_up_leaves_its_turn_to_the_next() -> None:
    """Also one that was given its turn in the moment in which it was given up: nobody waits for ever."""
    crowd = Crowd(callers=True)
    await crowd.come("mint 1", "mint 2", "write 1", "write 2")
    crowd.ends["mint 1"].set()
    for waits in ("write 1", "mint 2"):  # mint 1 finds them there still
        crowd.tasks[waits].cancel()
    await crowd.settle()
    after = list(crowd.begun)
    await crowd.come("mint 3", "mint 4")
    crowd.ends["write 2"].set()
    await asyncio.sleep(0)  # mint 3 was given its turn by that, and has not run since
    crowd.tasks["mint 3"].cancel()
    await crowd.settle()

    assert after == ["mint 1", "write 2"]
    assert crowd.begun == ["mint 1", "write 2", "mint 4"]


async def test_a_caller_who_waits_himself_waits_for_no_turn() -> None:
    """However many go on behind callers."""
    crowd = Crowd(callers=True)
    await crowd.come("mint 1")
    with at_once():
        await crowd.come("mint 2")

    assert crowd.begun == ["mint 1", "mint 2"]


async def test_what_is_late_for_long_is_not_held_up_by_callers() -> None:
    """Where each call takes long, one at a time would never be enough."""
    crowd = Crowd(callers=True)
    crowd.turns.late = lambda: PATIENCE_SECONDS - 1
    await crowd.come("mint 1", "write 1", "mint 2")
    before = list(crowd.begun)
    crowd.turns.late = lambda: PATIENCE_SECONDS
    await crowd.come("write 2")

    assert before == ["mint 1"]
    assert sorted(crowd.begun) == ["mint 1", "mint 2", "write 1", "write 2"]


async def test_a_call_that_hangs_holds_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Vault that does not answer must not keep tokens from being minted; its own kind is bounded still."""
    monkeypatch.setattr("broker.services.courtesy.HELD_SECONDS", 0.01)
    assert HELD_SECONDS == 0.25
    crowd = Crowd(callers=True)
    await crowd.come("mint 1", "mint 2", "mint 3", "write 1", "write 2", "write 3")
    before = list(crowd.begun)
    await asyncio.sleep(0.1)
    hung = list(crowd.begun)
    await crowd.end("mint 1", "mint 2", "write 1")
    await crowd.come("write 4", "write 5")
    at_once_then = list(crowd.begun)
    await asyncio.sleep(0.05)

    assert before == ["mint 1"]
    assert hung == ["mint 1", "mint 2", "write 1", "write 2", "write 3"]
    assert at_once_then == [*hung, "mint 3"]
    assert crowd.begun == [*at_once_then, "write 4"]


async def test_rotation_makes_so_many_calls_at_a_time_while_no_callers_come() -> None:
    """To the API server and to Vault: more of them take longer each (docs/performance.md)."""
    turns = Turns(Busy())
    minter, store = CourteousMinter(Minting(Busy()), turns), CourteousStore(World().vault, turns)

    assert (minter._kind.most, store._kind.most) == (4, 12)
