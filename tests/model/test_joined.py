"""The product joins its services so that rotation goes before routine, and behind callers."""

from collections.abc import Iterator

import pytest

from broker.services.rotation.courteous import CourteousMinter, CourteousStore
from broker.services.rush import LATE_SECONDS
from tests.model.replica import Replica
from tests.model.world import World
from tests.support.rotation import KEY


@pytest.fixture
def world() -> Iterator[World]:
    """Yield a world with one replica."""
    world = World()
    world.start("a")
    yield world
    world.close()


def test_a_copy_that_is_late_is_a_rush_for_looks_and_statuses(world: World) -> None:
    """For both, the same: they ask what rotation has to do."""
    replica = world.replicas["a"]
    before, during = [], []

    def late() -> None:
        before.extend(_rushes(replica))
        replica.keeper.queue.add(KEY, -LATE_SECONDS)
        during.extend(_rushes(replica))

    world.do(late)

    assert before == [False, False]
    assert during == [True, True]


def test_what_rotation_asks_stands_back_for_callers_at_the_gate(world: World) -> None:
    """Whatever looks at copies, mints for them, or writes them."""
    replica = world.replicas["a"]
    store, writer = replica.keeper._store, replica.keeper._writer

    assert isinstance(store, CourteousStore)
    assert isinstance(writer._minter, CourteousMinter)
    assert writer._store is store
    assert store._turns is writer._minter._turns
    assert store._turns._callers is replica.gate


def test_routine_takes_turns_with_rotation(world: World) -> None:
    """Together they make few calls at a time while callers come."""
    replica = world.replicas["a"]
    turns = replica.reconciler._preparer._hands.turns

    assert turns is replica.shared.board._pace._behind
    assert turns is replica.keeper._store._turns  # type: ignore[attr-defined]


@pytest.mark.parametrize("which", ["reconcile", "status", "rotate"])
def test_whatever_is_late_for_long_is_not_held_up_by_callers(world: World, which: str) -> None:
    """They ask about each of them."""
    replica = world.replicas["a"]
    queues = {it.name: it for it in (replica.reconciler.queue, replica.shared.board.queue, replica.keeper.queue)}
    turns, seen = replica.reconciler._preparer._hands.turns, list[float]()

    def late() -> None:
        seen.append(turns.late())
        queues[which].add(KEY if which == "rotate" else KEY.client, -1000)  # type: ignore[arg-type]
        seen.append(turns.late())

    world.do(late)

    assert seen[0] < 1
    assert seen[1] == pytest.approx(1000, abs=1)


def _rushes(replica: Replica) -> list[bool]:
    access = replica.reconciler._preparer._hands.access
    return [replica.shared.board._pace._rush.on, access._rush.on]  # type: ignore[attr-defined]
