"""What a delivery leaves behind that failed at a replica which does not lead."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin
from broker.services.rotation.copy import READING_SLACK
from broker.services.rotation.left_anchors import LOOK_SECONDS, LeftAnchor, LeftAnchors
from broker.services.workqueue import Lane
from tests.support.rotation import KEY, PLACE, RENEW_BEFORE, TTL, World, client

SLACK = RENEW_BEFORE + READING_SLACK.total_seconds()


class Two:
    """A leader that has made a copy whole, and a follower where a delivery on top of it has failed."""

    def __init__(self) -> None:
        self.world = World()
        self.world.registry.put(client())
        self.leader = self.world.rotator
        self.follower = self.leader

    async def fail(self, fault: BaseException | None = None) -> LeftAnchor:
        """Let the delivery fail after it has made an anchor for the version; return what the follower keeps of it."""
        await self.leader.visit(KEY)
        self.follower = self.world.restart()
        self.world.audit.fault = fault or BrokerError(Reason.AUDIT_UNAVAILABLE, "full")
        with pytest.raises(type(self.world.audit.fault)):
            await self.follower.deliver(client(), KEY.grant, Origin("r"))
        self.world.audit.fault = None
        assert len(self.world.cluster.versions) == 2
        (left,) = self.left.queue._planned[Lane.NORMAL]
        return left

    @property
    def left(self) -> LeftAnchors:
        """Return what the follower remembers them by."""
        return self.follower._current._left

    async def renew(self) -> None:
        """Let the leader write the next version when its time comes; it looks for no anchor of that number."""
        self.world.clock.pass_(TTL - RENEW_BEFORE)
        await self.leader.visit(KEY)
        copy = await self.world.vault.inspect(PLACE.path(KEY))
        assert copy is not None
        assert copy.current_version == 2

    def next(self, left: LeftAnchor) -> tuple[LeftAnchor, float]:
        """Return what was planned instead of ``left``, and in how many seconds."""
        planned = self.left.queue._planned[Lane.NORMAL]
        ((due, _, other),) = [one for one in planned._heap if one[2] != left]
        return other, due - asyncio.get_running_loop().time()


@pytest.fixture
def two() -> Two:
    """Return both."""
    return Two()


async def test_the_anchor_of_a_delivery_that_failed_is_deleted(two: Two) -> None:
    """After the leader has written that version without it, and all who may have read one have looked again."""
    left = await two.fail()
    await two.renew()

    assert await two.left.visit(left) is None
    assert left.name in two.world.cluster.anchors
    passed, seconds = two.next(left)
    assert passed == replace(left, was_passed=True)
    assert seconds == pytest.approx(SLACK, abs=1)

    assert await two.left.visit(passed) is None
    assert left.name not in two.world.cluster.anchors
    assert len(two.world.cluster.versions) == 1
    assert two.world.cluster.accepts(two.world.token() or "")


async def test_it_is_first_looked_at_after_a_while(two: Two) -> None:
    """The next version is hours away, mostly."""
    left = await two.fail()

    planned = two.left.queue._planned[Lane.NORMAL].first()
    assert planned is not None
    assert planned[2] == left
    assert planned[0] - asyncio.get_running_loop().time() == pytest.approx(LOOK_SECONDS, abs=1)


async def test_who_hung_up_leaves_nothing_either(two: Two) -> None:
    """A delivery whose caller is gone was cancelled somewhere."""
    left = await two.fail(asyncio.CancelledError())

    assert (left.copy, left.version, left.was_passed) == (KEY, 2, False)


@pytest.mark.parametrize("passed", [False, True])
async def test_it_is_left_alone_while_its_version_may_be_written(two: Two, passed: bool) -> None:  # noqa: FBT001
    """The leader's next attempt may have found it, and minted below it already."""
    left = replace(await two.fail(), was_passed=passed)

    assert await two.left.visit(left) == LOOK_SECONDS
    assert left.name in two.world.cluster.anchors


async def test_one_that_a_version_took_is_left_to_its_label(two: Two) -> None:
    """A second attempt finds it: then it is that of what readers get."""
    left = await two.fail()
    await two.follower.deliver(client(), KEY.grant, Origin("r"))

    assert await two.left.visit(replace(left, was_passed=True)) is None
    assert left.name in two.world.cluster.anchors
    assert two.world.cluster.accepts(two.world.token() or "")


async def test_one_that_a_label_keeps_for_readers_is_left_to_it(two: Two) -> None:
    """It was that of a version, and has been replaced since."""
    left = await two.fail()
    for _ in range(2):
        await two.follower.deliver(client(), KEY.grant, Origin("r"))

    assert await two.left.visit(replace(left, was_passed=True)) is None
    assert left.name in two.world.cluster.anchors
    assert not two.world.broken_readers()


async def test_one_that_went_with_the_anchor_above_is_forgotten(two: Two) -> None:
    """One of that name hangs below another one now, and is none of its business."""
    left = await two.fail()
    await two.renew()

    assert await two.left.visit(replace(left, root_uid="another", was_passed=True)) is None
    assert left.name in two.world.cluster.anchors


@pytest.mark.parametrize("passed", [False, True])
async def test_it_is_forgotten_with_a_copy_that_nobody_wants(two: Two, passed: bool) -> None:  # noqa: FBT001
    """The anchor above it goes with that."""
    left = replace(await two.fail(), was_passed=passed)
    del two.world.registry.known[KEY.client]

    assert await two.left.visit(left) is None


def _not_valid(two: Two) -> Awaitable[None] | None:
    two.world.registry.invalidate(KEY.client)
    return None


def _unlabelled(two: Two) -> Awaitable[None] | None:
    two.world.vault.entries[PLACE.path(KEY)].label = None
    return None


def _taken_away(two: Two) -> Awaitable[None] | None:
    return two.world.vault.remove(PLACE.path(KEY))


@pytest.mark.parametrize("harm", [_not_valid, _unlabelled, _taken_away])
async def test_it_waits_until_it_can_be_told(two: Two, harm: Callable[[Two], Awaitable[None] | None]) -> None:
    """A registration that is not valid keeps what it has, and without a label nothing is known."""
    left = await two.fail()
    await two.renew()
    harming = harm(two)
    if harming is not None:
        await harming

    assert await two.left.visit(replace(left, was_passed=True)) == LOOK_SECONDS
    assert left.name in two.world.cluster.anchors


async def test_nothing_is_ended_by_a_registry_that_is_not_fresh(two: Two) -> None:
    """The queue tries again."""
    left = await two.fail()
    two.world.registry.stale = True

    with pytest.raises(BrokerError, match="registry_stale"):
        await two.left.visit(left)


async def test_a_first_version_that_was_not_written_counts_too(two: Two) -> None:
    """There the leader writes the first one itself, and finds the anchor."""
    two.world.audit.fault = BrokerError(Reason.AUDIT_UNAVAILABLE, "full")
    with pytest.raises(BrokerError):
        await two.follower.deliver(client(), KEY.grant, Origin("r"))

    (left,) = two.left.queue._planned[Lane.NORMAL]
    assert left.version == 1
    assert left.name in two.world.cluster.versions


async def test_a_vault_that_is_away_is_not_asked(two: Two) -> None:
    """One question stands for all."""
    left = await two.fail()
    await two.renew()
    two.world.reach.away = BrokerError(Reason.VAULT_UNAVAILABLE, "sealed")
    two.world.power.calls = []

    assert await two.left.visit(replace(left, was_passed=True)) == LOOK_SECONDS
    assert two.world.power.calls == []
