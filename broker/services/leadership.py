"""One replica leads at a time, by a Lease, and stops by itself before another may start."""

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

import structlog

from broker.errors import BrokerError
from broker.model.lease import (
    LeaseRecord,
    Observed,
    Timing,
    may_stand,
    may_take,
    next_term,
    released,
    standing_for,
)
from broker.ports import Clock, LeaseStore

log = structlog.get_logger(__name__)

RELEASE_SECONDS = 2.0
"""How long a stop waits for the Lease to be given back; where it is not, it runs out by itself."""

EARLIEST = 0.8
"""A wait is cut short by up to a fifth, at random, so that replicas do not call together."""


class ChangeCounter(Protocol):
    """Counts how often leadership came and went."""

    def leader_changed(self, *, leading: bool) -> None:
        """Count that it was gained or lost."""


class Fitness(Protocol):
    """Tells whether this process could do a leader's work. Between the two, nothing is known for sure."""

    @property
    def fit(self) -> bool:
        """Tell whether it has done some of it a moment ago."""

    @property
    def unfit(self) -> bool:
        """Tell whether it could not for so long that another should lead, if one can."""


class Leadership:
    """Holds the Lease, or waits for it; implements :class:`broker.ports.Leader`.

    A renewal lets its sender lead for ``timing.lead`` seconds from before it was sent, by a clock that nobody
    sets; a process that is frozen, or whose calls fail, is no leader any more when that time is over, whether it
    notices or not. ``identity`` must be this process' own. ``on_change`` is told True and False in turn, by
    :meth:`run`, so for a frozen process late: what must not be done by two asks :attr:`leading` each time.

    A leader that is not fit says so in the Lease, and leads on until a replica that is fit offers to: so nothing
    changes hands where none is.
    """

    def __init__(
        self,
        *,
        store: LeaseStore,
        clock: Clock,
        metrics: ChangeCounter,
        identity: str,
        timing: Timing,
        fitness: Fitness,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._identity = identity
        self._timing = timing
        self._fitness = fitness
        self._until = self._ended = float("-inf")
        self._held: LeaseRecord | None = None
        self._observed: Observed | None = None
        self._told = False
        self._failure = ""
        self.on_change: Callable[[bool], None] = lambda _leading: None

    @property
    def leading(self) -> bool:
        """Tell whether this process leads now."""
        return self._clock.monotonic() < self._until

    async def run(self) -> None:
        """Take and renew the Lease until cancelled, and give it back then."""
        try:
            while True:
                delay = await self._attempt()
                self._tell()
                await self._sleep(delay)
                self._tell()
        finally:
            self._end()
            await self._release()

    async def _sleep(self, delay: float) -> None:
        delay *= EARLIEST + (1 - EARLIEST) * random.random()  # noqa: S311 - jitter, not a secret
        await asyncio.sleep(self._within_lead(delay))

    def _within_lead(self, seconds: float) -> float:
        """Return how long to wait for anything: no longer than the lead lasts, so that its end is told in time."""
        left = self._until - self._clock.monotonic()
        return min(seconds, left) if left > 0 else seconds

    async def _attempt(self) -> float:
        """Try once to hold the Lease, and return the seconds until the next attempt."""
        limit = self._within_lead(self._timing.call)
        try:
            async with asyncio.timeout(limit):
                holds = self._held is not None and await self._take(self._held)
                delay = self._timing.renew if holds else await self._look()
        except BrokerError as error:
            return self._failed(str(error.reason), error.operator_detail)
        except TimeoutError:
            return self._failed("timeout", f"The API server did not answer within {limit:.1f} s.")
        self._failure = ""
        return delay

    def _failed(self, reason: str, detail: str) -> float:
        """Log the first of several failures alike, which may go on for days, and return the time until a retry."""
        if reason != self._failure:
            log.warning("leader.lease_failed", reason=reason, detail=detail)
        self._failure = reason
        return self._timing.retry

    async def _look(self) -> float:
        """Read the Lease, and take it where that is allowed."""
        record = await self._store.read()
        if record is None or record.term.holder != self._identity:
            self._end()  # another may have led, and be gone already: then this one begins anew
        if record is not None and await self._stood_aside(record):
            return self._timing.retry
        taken = (record is None or self._may_take(record)) and await self._take(record)
        return self._timing.renew if taken else self._timing.retry

    async def _stood_aside(self, record: LeaseRecord) -> bool:
        """Give the Lease up for a fit candidate, or offer to lead in an unfit leader's place; tell whether one was."""
        mine = record.term.holder == self._identity
        if mine and record.term.candidate and self._fitness.unfit:
            self._end()
            if self._clock.monotonic() - self._ended >= self._timing.margin:  # what was begun is over or given up
                log.warning("leader.unfit", candidate=record.term.candidate)
                await self._store.write(released(record.term, self._clock.now()), record)
            return True
        if self._fitness.fit and may_stand(record, self._identity):
            await self._store.write(standing_for(record.term, self._identity), record)
            return True
        return False

    def _may_take(self, record: LeaseRecord) -> bool:
        now = self._clock.monotonic()
        self._observed = Observed.first(record, now, self._observed)
        seconds = now - self._observed.since
        if not record.term.holder and self._fitness.unfit and seconds < self._timing.duration:
            return False  # somebody who is fit may want it
        return may_take(record, self._identity, seconds)

    async def _take(self, over: LeaseRecord | None) -> bool:
        """Write the Lease, and tell whether it is held: not where it was written since it was read.

        By whom, the next look says. It may have been this very process, whose call was given up and carried out: so the
        lead goes on for as long as one look may take. What is left undone while nobody leads is done when the lead is
        told, so no end of it may go untold, however short.
        """
        started = self._clock.monotonic()
        before, unfit = over.term if over else None, self._fitness.unfit
        term = next_term(before, self._identity, self._timing.duration, self._clock.now(), unfit=unfit)
        self._held = await self._store.write(term, over)
        if self._held is None:
            self._until = min(self._until, self._clock.monotonic() + self._timing.call)
            return False
        self._tell()
        self._until = started + self._timing.lead
        return True

    def _end(self) -> None:
        if self._until > float("-inf"):
            self._ended = self._clock.monotonic()
        self._until = float("-inf")
        self._tell()

    def _tell(self) -> None:
        leading = self.leading
        if leading is not self._told:
            self._told = leading
            self._metrics.leader_changed(leading=leading)
            log.info("leader.gained" if leading else "leader.lost", identity=self._identity)
            self.on_change(leading)

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                record = await self._store.read()
                if record is not None and record.term.holder == self._identity:
                    await self._store.write(released(record.term, self._clock.now()), record)
        except (BrokerError, TimeoutError) as error:
            log.warning("leader.not_released", detail=str(error) or "no answer in time")


class Own:
    """The lead over statuses that no other replica sees: those of clients in a directory (broker.ports.Leader)."""

    leading = True
