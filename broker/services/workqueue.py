"""Keys to be visited: each by one worker at a time, again when it is due, with backoff after a failure."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from enum import IntEnum
from typing import Generic, TypeVar

import structlog

from broker.errors import BrokerError
from broker.model.schedule import backoff
from broker.services.waiting import Entry, Waiting

log = structlog.get_logger(__name__)

Key = TypeVar("Key", bound=Hashable)

FIRST_SECONDS = 3600.0
"""News, and a key in a hurry, go before what was planned, unless that has waited for so long."""


class Lane(IntEnum):
    """Who visits a key: urgent ones have workers of their own, so that slow visits of others do not hold them up."""

    NORMAL = 0
    URGENT = 1


Work = Callable[[Key], Awaitable[float | None]]
"""Visits a key."""


class _Visit:
    """A visit under way, which may be given up for a more urgent one of the same key."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.timeout = asyncio.timeout(None)
        self.superseded = False

    def supersede(self) -> None:
        """Cancel it, once."""
        if not self.superseded:
            self.superseded = True
            self.timeout.reschedule(asyncio.get_running_loop().time())


class WorkQueue(Generic[Key]):
    """Visits keys with ``workers`` at a time, and urgent ones with ``urgent_workers`` beside them.

    ``work`` returns the seconds until its key's next visit, or None for no more; a BrokerError that it raises
    is logged here and the key visited again with backoff. The queue holds one entry a key (and one more for a key in
    a hurry): adding one that waits already brings it forward, never puts it off.

    ``urgent_work`` is what is done with a key in a hurry; when it returns, the key is no longer. Then ``work`` must
    bear to be cancelled at each await, because a visit under way is when its key gets into a hurry.
    """

    def __init__(
        self, name: str, work: Work[Key], *, workers: int, urgent_work: Work[Key] | None = None, urgent_workers: int = 0
    ) -> None:
        self.name = name
        self._work = {Lane.NORMAL: work, Lane.URGENT: urgent_work or work}
        self._workers = {Lane.NORMAL: workers, Lane.URGENT: urgent_workers}
        self._planned: dict[Lane, Waiting[Key]] = {lane: Waiting() for lane in Lane}
        """In which order keys are visited: by when they are due, or an hour before where they go first."""
        self._waiting: dict[Lane, Waiting[Key]] = {lane: Waiting() for lane in Lane}
        """When they are due, whatever goes first; without those that are being visited."""
        self._working: dict[Key, _Visit] = {}
        self._failures: dict[Key, int] = {}
        self._held: dict[Key, list[tuple[Lane, Entry[Key], float | None]]] = {}
        self._changed = {lane: asyncio.Event() for lane in Lane}

    def __len__(self) -> int:
        """Return how many keys wait or are being visited."""
        return len({*self._working, *(key for planned in self._planned.values() for key in planned)})

    def overdue(self) -> float:
        """Return for how many seconds the oldest key has been due that nobody visits; 0 where none is.

        What goes before all that was planned does not hide how late that is.
        """
        now = asyncio.get_running_loop().time()
        oldest = filter(None, (waiting.first() for waiting in self._waiting.values()))
        return max((0.0, *(now - due for due, _, _ in oldest)))

    def pressing(self) -> bool:
        """Tell whether news waits for a worker, that is, goes before what was planned."""
        entry = self._planned[Lane.NORMAL].first()
        due = self._waiting[Lane.NORMAL].due(entry[2]) if entry is not None else None
        return entry is not None and due is not None and entry[0] < due

    def add(self, key: Key, delay: float = 0.0, *, urgent: bool = False) -> None:
        """Visit a key in ``delay`` seconds, or earlier where that was planned already."""
        self._add(key, delay, Lane.URGENT if urgent else Lane.NORMAL)

    def news(self, key: Key) -> None:
        """Visit a key as soon as a worker is free, before all that was planned: with many keys that takes minutes."""
        self._add(key, 0.0, Lane.NORMAL, first=True)

    def hurry(self, key: Key) -> None:
        """Visit a key now, before all that was planned; its own visit that is under way is given up for it."""
        self._add(key, 0.0, Lane.URGENT, first=True)
        visit = self._working.get(key)
        if visit is not None and visit.lane is Lane.NORMAL:
            visit.supersede()

    def forget(self, key: Key) -> None:
        """Visit a key no more; a visit under way is finished."""
        for lane in Lane:
            self._planned[lane].drop(key)
            self._waiting[lane].drop(key)
        self._failures.pop(key, None)

    async def run(self) -> None:
        """Visit keys until cancelled; visits under way are cancelled then."""
        async with asyncio.TaskGroup() as workers:
            for lane, count in self._workers.items():
                for number in range(count):
                    workers.create_task(self._worker(lane), name=f"{self.name}-{lane.name.lower()}-{number}")

    def _add(self, key: Key, delay: float, lane: Lane, *, first: bool = False) -> None:
        if not self._workers[lane]:
            raise RuntimeError(f"the queue {self.name} has nobody for what is {lane.name.lower()}")
        since = asyncio.get_running_loop().time() + delay
        if self._planned[lane].note(key, since - FIRST_SECONDS if first else since):
            self._waiting[lane].note(key, since)
            self._changed[lane].set()

    async def _worker(self, lane: Lane) -> None:
        while True:
            key = await self._next(lane)
            try:
                again = await self._visit(key, lane)
            finally:
                self._working.pop(key, None)
                self._let_go(key)
                for changed in self._changed.values():
                    changed.set()
            if again is not None:
                self._add(key, *again)

    async def _next(self, lane: Lane) -> Key:
        while True:
            now = asyncio.get_running_loop().time()
            key = self._pop_due(lane, now)
            if key is not None:
                return key
            self._changed[lane].clear()
            first = self._planned[lane].first()
            wait = first[0] - now if first is not None else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed[lane].wait()
            except TimeoutError:
                continue

    def _pop_due(self, lane: Lane, now: float) -> Key | None:
        """Return a key that is due; those that are being visited are held back until that has ended."""
        planned, waiting = self._planned[lane], self._waiting[lane]
        while (entry := planned.first()) is not None and entry[0] <= now:
            planned.take()
            key = entry[2]
            since = waiting.drop(key)
            if key not in self._working:
                planned.drop(key)
                self._working[key] = _Visit(lane)
                return key
            self._held.setdefault(key, []).append((lane, entry, since))
        return None

    def _let_go(self, key: Key) -> None:
        """Let what was held back while a key was visited be due again, unless it was forgotten meanwhile."""
        for lane, entry, since in self._held.pop(key, ()):
            self._planned[lane].put_back(entry)
            if since is not None and self._planned[lane].counts(entry):
                self._waiting[lane].note(key, since)

    async def _visit(self, key: Key, lane: Lane) -> tuple[float, Lane] | None:
        """Visit a key, and return when to visit it again, and who shall."""
        visit = self._working[key]
        try:
            async with visit.timeout:
                delay = await self._work[lane](key)
        except BrokerError as error:
            return self._failed(key, error), lane
        except TimeoutError:
            if visit.superseded:
                return None  # and the key waits already
            raise
        self._failures.pop(key, None)
        return None if delay is None else (delay, Lane.NORMAL)

    def _failed(self, key: Key, error: BrokerError) -> float:
        attempt = self._failures.get(key, 0) + 1
        self._failures[key] = attempt
        delay = backoff(attempt, random.random())  # noqa: S311 - jitter, not a secret
        log.warning(
            "work.failed",
            queue=self.name,
            key=str(key),
            reason=str(error.reason),
            detail=error.operator_detail,
            attempt=attempt,
            retry_in_seconds=round(delay, 1),
        )
        return delay
