"""Keys to be visited: each by one worker at a time, again when it is due, with backoff after a failure."""

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

from broker.errors import BrokerError
from broker.model.schedule import backoff

log = structlog.get_logger(__name__)

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Visits keys with ``workers`` at a time.

    ``work`` returns the seconds until its key's next visit, or None for no more; a BrokerError that it raises
    is logged here and the key visited again with backoff. The queue holds one entry a key: adding one that
    waits already brings it forward, never puts it off.
    """

    def __init__(self, name: str, work: Callable[[Key], Awaitable[float | None]], *, workers: int) -> None:
        self._name = name
        self._work = work
        self._workers = workers
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._working: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys wait or are being visited."""
        return len(self._due.keys() | self._working)

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Visit a key in ``delay`` seconds, or earlier where that was planned already."""
        due = asyncio.get_running_loop().time() + delay
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._changed.set()

    def forget(self, key: Key) -> None:
        """Visit a key no more; a visit under way is finished."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def run(self) -> None:
        """Visit keys until cancelled; visits under way are cancelled then."""
        async with asyncio.TaskGroup() as workers:
            for number in range(self._workers):
                workers.create_task(self._worker(), name=f"{self._name}-{number}")

    async def _worker(self) -> None:
        while True:
            key = await self._next()
            self._working.add(key)
            try:
                delay = await self._visit(key)
            finally:
                self._working.discard(key)
                self._changed.set()
            if delay is not None:
                self.add(key, delay)

    async def _next(self) -> Key:
        while True:
            now = asyncio.get_running_loop().time()
            key = self._pop_due(now)
            if key is not None:
                return key
            self._changed.clear()
            wait = self._heap[0][0] - now if self._heap and not self._blocked() else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _blocked(self) -> bool:
        """Tell whether everything due waits for a visit of the same key to end, which sets ``_changed``."""
        return self._heap[0][0] <= asyncio.get_running_loop().time()

    def _pop_due(self, now: float) -> Key | None:
        busy: list[tuple[float, int, Key]] = []
        found: Key | None = None
        while self._heap and self._heap[0][0] <= now and found is None:
            entry = heapq.heappop(self._heap)
            if self._due.get(entry[2]) != entry[0]:
                continue  # forgotten, or brought forward by a later entry
            if entry[2] in self._working:
                busy.append(entry)
            else:
                found = entry[2]
                del self._due[found]
        for entry in busy:
            heapq.heappush(self._heap, entry)
        return found

    async def _visit(self, key: Key) -> float | None:
        try:
            delay = await self._work(key)
        except BrokerError as error:
            return self._failed(key, error)
        self._failures.pop(key, None)
        return delay

    def _failed(self, key: Key, error: BrokerError) -> float:
        attempt = self._failures.get(key, 0) + 1
        self._failures[key] = attempt
        delay = backoff(attempt, random.random())  # noqa: S311 - jitter, not a secret
        log.warning(
            "work.failed",
            queue=self._name,
            key=str(key),
            reason=str(error.reason),
            detail=error.operator_detail,
            attempt=attempt,
            retry_in_seconds=round(delay, 1),
        )
        return delay
