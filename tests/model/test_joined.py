"""The product joins its services so that rotation goes before routine, and behind callers."""

from collections.abc import Iterator

import pytest

from broker.errors import Fault, Reason
from broker.services.prepare import PATIENCE_SECONDS
from broker.services.rotation.behind_callers import CourteousMinter, CourteousStore
from broker.services.rush import LATE_SECONDS
from tests.model.clients import WEB, new_client
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


def test_rotation_that_is_late_for_long_is_not_held_up_by_callers(world: World) -> None:
    """It asks how late it is."""
    replica = world.replicas["a"]
    seen = list[float]()

    def late() -> None:
        turns = replica.keeper._store._turns  # type: ignore[attr-defined]
        seen.append(turns.late())
        replica.keeper.queue.add(KEY, -1000)
        seen.append(turns.late())

    world.do(late)

    assert seen[0] < 1
    assert seen[1] == pytest.approx(1000, abs=1)


def test_looks_again_stand_back_for_callers_at_the_gate_until_they_are_late_or_there_is_news(world: World) -> None:
    """They have turns of their own, so that rotation does not hold them up, and ask who waits for those who look."""
    replica = world.replicas["a"]
    turns = replica.reconciler._preparer._hands.turns
    seen, pressing = list[float](), list[bool]()

    def late() -> None:
        seen.append(turns.late())
        replica.reconciler.queue.add(WEB, -1000)
        seen.append(turns.late())
        pressing.append(turns.pressing())
        replica.reconciler.queue.news(WEB)
        pressing.append(turns.pressing())

    world.do(late)

    assert pressing == [False, True]
    assert turns._patience == PATIENCE_SECONDS
    assert turns._callers is replica.gate
    assert turns is not replica.keeper._store._turns  # type: ignore[attr-defined]
    assert seen[0] < 1
    assert seen[1] == pytest.approx(1000, abs=1)


def test_whatever_is_queued_is_done(world: World) -> None:
    """Each queue has somebody who visits what is in it."""
    replica = world.replicas["a"]
    queues = [it.queue for it in (replica.keeper, replica.left, replica.shared.board, replica.shared.tokens)]

    assert [replica.jobs[queue.name] for queue in queues] == [queue.run for queue in queues]


def test_a_status_that_was_overtaken_is_written_when_the_watch_brings_what_overtook_it(world: World) -> None:
    """Not when a minute is over."""
    board, kube = world.replicas["a"].shared.board, world.kube
    world.do(lambda: kube.apply(new_client(WEB, kube.uid(), (("plain", "reporter"),))))
    world.pass_(45.0)

    def overtake() -> None:
        kube.resources[WEB].version += 1000  # and the watch is late
        board.rehearsed(WEB, "plain", Fault(Reason.SERVICE_ACCOUNT_MISSING, "gone"), None)

    world.do(overtake)
    world.pass_(5.0)
    before = _ready(world)
    world.do(lambda: kube.changed(WEB))
    world.pass_(1.0)

    assert before == "Ready"
    assert _ready(world) == "ServiceAccountMissing"


def _ready(world: World) -> str:
    reason: str = world.kube.resources[WEB].status["conditions"][0]["reason"]
    return reason


def _rushes(replica: Replica) -> list[bool]:
    access = replica.reconciler._preparer._hands.access
    return [replica.shared.board._pace._rush.on, access._rush.on]  # type: ignore[attr-defined]
