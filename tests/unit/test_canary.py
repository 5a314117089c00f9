"""The broker issues while its limits are known to be in force: in virtual time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.answer import unavailable
from broker.model.anchor import grant_anchor
from broker.model.token import MintedToken, TokenSpec
from broker.services.canary import AGAIN_SECONDS, COUNTS_SECONDS, EVERY_SECONDS, Canary, GuardedAnchors, GuardedMinter
from tests.support.election import VirtualLoop
from tests.support.rotation import FakeCluster, HandClock, Power, client, grant

TOKENS, SECRETS = "tokenbroker-tokens", "tokenbroker-secrets"
SPEC = TokenSpec("shop", "reader", "https://kubernetes.default.svc", 600, None)
AWAY = unavailable("it is away")


@dataclass
class World:
    """Time, the API server as the canary finds it, and the metrics. Implements Clock, Probe and CanaryMetrics."""

    seconds: float = 1000.0
    found: tuple[str, ...] | BrokerError = ()
    tried_at: list[float] = field(default_factory=list)
    shown: list[tuple[str, ...]] = field(default_factory=list)

    def now(self) -> datetime:
        """Return the time as a date."""
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        """Return the time."""
        return self.seconds

    async def missing(self) -> tuple[str, ...]:
        """Return what the API server does not refuse."""
        self.tried_at.append(self.seconds)
        if isinstance(self.found, BrokerError):
            raise self.found
        return self.found

    def policies_missing(self, names: tuple[str, ...]) -> None:
        """Keep what the gauge shows."""
        self.shown.append(names)


class Running:
    """A canary that runs in a loop whose time passes when it is told to."""

    def __init__(self, world: World, loop: VirtualLoop) -> None:
        self.world = world
        self.canary = Canary(world, world, world)
        self._loop = loop
        self.task = loop.create_task(self.canary.run())

    def pass_(self, seconds: float) -> None:
        """Let time pass, second by second."""
        self._loop.turn()
        for _ in range(round(seconds)):
            self.world.seconds += 1
            self._loop.turn()

    def tried(self) -> list[float]:
        """Return after how many seconds the policies were tried, and forget it."""
        times = [at - 1000 for at in self.world.tried_at]
        self.world.tried_at.clear()
        return times


@pytest.fixture
def running() -> Iterator[Running]:
    """Return a canary that was not started yet: the first second starts it."""
    world = World()
    loop = VirtualLoop(world.monotonic)
    running = Running(world, loop)
    yield running
    running.task.cancel()
    loop.turn()
    assert running.task.cancelled()
    loop.close()


def words(canary: Canary) -> str:
    """Return what operators are told of why nothing is issued."""
    fault = canary.fault()
    assert fault is not None
    assert (fault.reason, fault.retry_after) == (Reason.POLICY_MISSING, 10)
    return fault.operator_detail


def test_nothing_is_issued_before_the_first_trial(running: Running) -> None:
    """Not known is not in force."""
    assert "not tried yet" in words(running.canary)


def test_policies_in_force_are_tried_each_minute(running: Running) -> None:
    """The gauge says that none is missing."""
    running.pass_(2 * EVERY_SECONDS)

    assert running.canary.fault() is None
    assert running.tried() == [0, EVERY_SECONDS, 2 * EVERY_SECONDS]
    assert running.world.shown == [()] * 3


def test_a_missing_policy_is_named_and_tried_every_five_seconds(running: Running) -> None:
    """Until it is in force again; then the broker issues by itself."""
    running.world.found = (TOKENS, SECRETS)
    running.pass_(AGAIN_SECONDS)
    said = words(running.canary)
    running.world.found = ()
    running.pass_(AGAIN_SECONDS)

    assert f"{TOKENS}, {SECRETS} did not refuse" in said
    assert running.canary.fault() is None
    assert running.tried() == [0, AGAIN_SECONDS, 2 * AGAIN_SECONDS]
    assert running.world.shown == [(TOKENS, SECRETS)] * 2 + [()]


def test_a_policy_that_goes_stops_the_broker_at_the_next_trial(running: Running) -> None:
    """Within a minute."""
    running.pass_(1)
    running.world.found = (SECRETS,)
    running.pass_(EVERY_SECONDS - 2)
    before = running.canary.fault()
    running.pass_(1)

    assert before is None
    assert SECRETS in words(running.canary)


def test_an_api_server_away_at_start_is_tried_every_five_seconds(running: Running) -> None:
    """The broker is not ready, and says why; the gauge shows nothing that was not found out."""
    running.world.found = AWAY
    running.pass_(AGAIN_SECONDS)

    assert "could not be tried" in words(running.canary)
    assert "it is away" in words(running.canary)
    assert running.tried() == [0, AGAIN_SECONDS]
    assert running.world.shown == []


@pytest.mark.parametrize("found", [(), (TOKENS,), AWAY], ids=["in force", "missing", "away"])
async def test_one_trial_is_enough_to_say_something(found: tuple[str, ...] | BrokerError) -> None:
    """Whatever came of it: who waits for the canary before it visits anybody does not wait for the API server."""
    world = World(found=found)
    canary = Canary(world, world, world)
    before = canary.looked.is_set()
    could = await canary.look()

    assert (before, canary.looked.is_set()) == (False, True)
    assert could is not isinstance(found, BrokerError)


def test_a_trial_counts_five_minutes_where_none_can_be_made(running: Running) -> None:
    """A short absence of the API server is no reason to stop; a longer one is. Meanwhile it tries every 5 s."""
    running.pass_(1)
    running.world.found = AWAY
    running.pass_(COUNTS_SECONDS - 1)
    still = running.canary.fault()
    running.pass_(1)

    assert still is None
    assert "it is away" in words(running.canary)
    assert running.tried()[:3] == [0, EVERY_SECONDS, EVERY_SECONDS + AGAIN_SECONDS]


def test_a_missing_policy_stays_missing_where_no_trial_can_be_made(running: Running) -> None:
    """What was found out last counts, and is no longer said when it is too old."""
    running.world.found = (TOKENS,)
    running.pass_(1)
    running.world.found = AWAY
    running.pass_(10)
    first = words(running.canary)
    running.pass_(COUNTS_SECONDS)

    assert TOKENS in first
    assert "could not be tried" in words(running.canary)


class Mint:
    """Implements Minter; notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Note that a token was wanted."""
        return self._note("mint", spec)

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Note that one was tried out."""
        return self._note("rehearse", spec)

    def _note(self, call: str, spec: TokenSpec) -> MintedToken:
        assert spec is SPEC
        self.asked.append(call)
        raise AWAY


@pytest.mark.parametrize("call", ["mint", "rehearse"])
async def test_no_token_is_minted_while_a_policy_is_missing(call: str) -> None:
    """Neither for a caller nor on trial: the API server is not even asked. In force, it is."""
    world, minter = World(found=(TOKENS,)), Mint()
    canary = Canary(world, world, world)
    guarded = GuardedMinter(minter, canary)
    tries = {"mint": guarded.mint, "rehearse": guarded.rehearse}
    await canary.look()
    with pytest.raises(BrokerError) as refused:
        await tries[call](SPEC)
    world.found = ()
    await canary.look()
    with pytest.raises(BrokerError) as passed_on:
        await tries[call](SPEC)

    assert refused.value.reason is Reason.POLICY_MISSING
    assert passed_on.value is AWAY
    assert minter.asked == [call]


async def test_no_anchor_is_made_while_a_policy_is_missing() -> None:
    """What ends tokens goes on; in force again, anchors are made."""
    world, cluster = World(found=(SECRETS,)), FakeCluster(Power(), HandClock())
    canary = Canary(world, world, world)
    anchors = GuardedAnchors(cluster, canary)
    there, which = grant_anchor("uid-1", grant()), grant_anchor("uid-2", grant())
    made = await cluster.ensure(client(), there)
    await canary.look()
    with pytest.raises(BrokerError) as refused:
        await anchors.ensure(client(), which)
    found, deleted = await anchors.find(client(), there), await anchors.delete("shop", there.name)
    world.found = ()
    await canary.look()
    parent = await anchors.ensure(client(), there)
    below = await anchors.ensure(client(), which, parent)

    assert refused.value.reason is Reason.POLICY_MISSING
    assert (found, deleted) == (made, True)
    assert cluster.parents[below.uid] == parent.uid
