"""The API server's time: what its tokens live by, whatever this machine's clock says.

A clock that is an hour off would else replace copies in Vault all the time, or let them expire, and tell OAuth
clients a wrong time for which their token is good.
"""

from datetime import UTC, datetime

import structlog

from broker.model.token import MintedToken, TokenSpec
from broker.ports import Clock, Minter

log = structlog.get_logger(__name__)

TOLERATED_SECONDS = 10.0
"""Clocks that differ by no more are taken to agree: a token says no more than the second in which it was issued."""


PROMPT_SECONDS = 5.0
"""An answer that took longer tells nothing: it may be as old."""

WHOLE_SECOND = 1.0
"""A token says in which second it was issued, and that is taken to be over: who waits for a time is not too early."""


class ServerTime:
    """This machine's date, or where that is far from the API server's, the API server's; implements Clock.

    That is what it said last, in a token or of the Lease, carried on by the monotonic clock. Until then nothing is
    known; who leads has written the Lease before, so that it ends nothing by a clock that is wrong.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: tuple[datetime, float] | None = None
        self._agree = True

    def now(self) -> datetime:
        """Return the date and time, UTC."""
        own, theirs = self._clock.now(), self._theirs()
        if theirs is None or abs(own.timestamp() - theirs) <= TOLERATED_SECONDS:
            return own
        return datetime.fromtimestamp(theirs, UTC)

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return self._clock.monotonic()

    def heard(self, moment: datetime, took: float) -> None:
        """Take note of the second that it was by the API server's clock at some time of the last ``took`` seconds."""
        if took <= PROMPT_SECONDS:
            self._heard = moment, self._clock.monotonic()

    def compare(self) -> None:
        """Log when the two clocks begin to differ, or to agree again."""
        ahead = self._clock.now().timestamp() - (self._theirs() or 0.0)
        agree = abs(ahead) <= TOLERATED_SECONDS
        if agree is not self._agree:
            self._agree = agree
            say, event = (log.info, "clock.agrees") if agree else (log.warning, "clock.differs")
            say(event, seconds_ahead=round(ahead))

    def _theirs(self) -> float | None:
        if self._heard is None:
            return None
        issued_at, since = self._heard
        return issued_at.timestamp() + WHOLE_SECOND + self._clock.monotonic() - since


class TimedMinter:
    """Mints, and hears from each token what time it is; implements :class:`broker.ports.Minter`."""

    def __init__(self, minter: Minter, time: ServerTime) -> None:
        self._minter = minter
        self._time = time

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """See :meth:`broker.ports.Minter.mint`."""
        began = self._time.monotonic()
        token = await self._minter.mint(spec)
        self._time.heard(token.issued_at, self._time.monotonic() - began)
        return token

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """See :meth:`broker.ports.Minter.rehearse`."""
        began = self._time.monotonic()
        token = await self._minter.rehearse(spec)
        self._time.heard(token.issued_at, self._time.monotonic() - began)
        self._time.compare()
        return token
