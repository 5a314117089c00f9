"""Since when keys have been due, and the oldest of them without looking at all."""

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

SUPERSEDED = 64
"""Entries that count no more are left in a heap up to this many beyond those that do."""


class Waiting(Generic[Key]):
    """Remembers of each key when it is due, whatever order they are visited in; times are those of one clock."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()

    def note(self, key: Key, due: float) -> None:
        """Note when a key is due; where it is noted already, the earlier time counts."""
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        if len(self._heap) > 2 * len(self._due) + SUPERSEDED:
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (due, next(self._order), key))

    def drop(self, key: Key) -> float | None:
        """Forget a key that waits no more, and return when it was due, or None where it did not wait."""
        return self._due.pop(key, None)

    def oldest(self, default: float) -> float:
        """Return when the key is due that is due first, or ``default`` where there is none."""
        while self._heap and not self._counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else default

    def _counts(self, entry: tuple[float, int, Key]) -> bool:
        return self._due.get(entry[2]) == entry[0]
