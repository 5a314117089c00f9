"""A machine whose clock is an hour off: copies live by the API server's time, and nothing else changes."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from broker.model.client import VaultCopy
from broker.model.sensitive import Sensitive
from broker.model.token import MintedToken, TokenSpec
from broker.ports import Minter
from broker.services.rotation.rotate import Rotator
from broker.services.rotation.shown import ShownCopies
from broker.services.server_time import PROMPT_SECONDS, TOLERATED_SECONDS, WHOLE_SECOND, ServerTime, TimedMinter
from tests.support.rotation import KEY, PLACE, HandClock, World, client, fake_rotator, grant

HOUR = 3600.0
SECOND = timedelta(seconds=WHOLE_SECOND)
SHORT = VaultCopy(3600, 1200)
"""A copy for which an hour is everything."""


@dataclass
class Off:
    """A machine's clock that is off by some seconds; its monotonic one goes as it should."""

    true: HandClock
    seconds: float = 0.0

    def now(self) -> datetime:
        """Return a wrong date."""
        return self.true.now() + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return what has nothing to do with dates."""
        return self.true.monotonic() - 5e8


class Issuer:
    """Implements Minter: says the true time."""

    def __init__(self, true: HandClock) -> None:
        self._true = true

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Return a token of now, in whole seconds as the API server writes them."""
        now = self._true.now().replace(microsecond=0)
        return MintedToken(Sensitive("t"), "jti", now, now + timedelta(seconds=spec.ttl_seconds), "")

    rehearse = mint


SPEC = TokenSpec("shop", "reporter", "api", 600, None)


async def _told(off: Off) -> ServerTime:
    time = ServerTime(off)
    await TimedMinter(Issuer(off.true), time).rehearse(SPEC)
    return time


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 12.5, -11.5])
async def test_a_clock_that_is_far_off_is_not_believed(seconds: float) -> None:
    """After the first token; and time goes on by the monotonic clock."""
    off = Off(HandClock(), seconds)
    before = ServerTime(off).now()
    time = await _told(off)
    off.true.pass_(100)

    assert before == off.now() - timedelta(seconds=100)
    assert time.now() == off.true.now() + SECOND
    assert time.monotonic() == off.monotonic()


@pytest.mark.parametrize("seconds", [TOLERATED_SECONDS, 0.25, 2 - TOLERATED_SECONDS])
async def test_clocks_that_agree_are_left_alone(seconds: float) -> None:
    """To the microsecond: what a token says is no better."""
    time = await _told(off := Off(HandClock(), seconds))
    off.true.pass_(1.5)

    assert time.now() == off.now()


async def test_a_clock_that_is_set_later_is_noticed_at_once() -> None:
    """Without another token; and so is its way back."""
    time = await _told(off := Off(HandClock()))
    off.seconds = HOUR
    ahead = time.now()
    off.seconds = 0.0

    assert ahead == off.true.now() + SECOND
    assert time.now() == off.true.now()


@pytest.mark.parametrize("how", ["mint", "rehearse"])
async def test_each_token_tells_the_time(how: str) -> None:
    """Those that are handed out as well: a replica that follows may try nothing out."""
    time = ServerTime(off := Off(HandClock(), HOUR))
    await getattr(TimedMinter(Issuer(off.true), time), how)(SPEC)

    assert time.now() == off.true.now() + SECOND


async def test_a_difference_is_logged_once_and_its_end_too() -> None:
    """With how much it is, and in which direction."""
    time = ServerTime(off := Off(HandClock()))
    minter: Minter = TimedMinter(Issuer(off.true), time)
    with capture_logs() as logs:
        for seconds in (0.0, -HOUR, -HOUR, 0.0, 0.0):
            off.seconds = seconds
            await minter.rehearse(SPEC)

    assert [(line["event"], line["seconds_ahead"]) for line in logs] == [("clock.differs", -3601), ("clock.agrees", -1)]


def _rotator(world: World, off: Off) -> Rotator:
    time = ServerTime(off)
    return fake_rotator(
        registry=world.registry,
        cluster=world.cluster,
        vault=world.vault,
        audit=world.audit,
        clock=time,
        book=world.registry.book,
        shown=ShownCopies(world.watcher, PLACE, world.watcher, world.cluster),
        minter=TimedMinter(world.cluster, time),
    )


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
async def test_a_copy_is_renewed_when_the_api_server_says_that_it_is_time(seconds: float) -> None:
    """Over a day, with a clock that was set an hour off: no more versions than it takes, and one that works."""
    world = World()
    world.registry.put(client(grants=(grant(vault=SHORT),)))
    off = Off(world.clock)
    rotator = _rotator(world, off)
    await rotator.visit(KEY)
    off.seconds = seconds
    for _ in range(24 * 12):
        wait = await rotator.visit(KEY)
        world.clock.pass_(min(wait or 0.0, 300.0))
        token = world.token()
        assert token is not None
        assert world.cluster.accepts(token)
    hours = (world.clock.now() - HandClock().now()).total_seconds() / HOUR
    versions = len(world.vault.entries[PLACE.path(KEY)].versions)

    assert hours > 18
    assert versions <= hours * HOUR / (SHORT.ttl_seconds - SHORT.renew_before_seconds) * 1.15 + 2


async def test_an_answer_that_was_slow_says_nothing_of_now() -> None:
    """It may be as old as it took: a right clock would be taken for a wrong one."""
    true = HandClock()
    time = await _told(Off(true))
    time.heard(true.now() - timedelta(seconds=PROMPT_SECONDS + 20), PROMPT_SECONDS + 20)

    assert time.now() == true.now()
