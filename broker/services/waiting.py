"""Keys with a time each, the earliest first, found without looking at all."""

import heapq
import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

SUPERSEDED = 64
"""Entries that count no more are left in a heap up to this many beyond those that do."""

Entry = tuple[float, int, Key]
"""A key's time; the order in which entries came; the key."""


class Waiting(Generic[Key]):
    """Remembers of each key when it is due, by one clock. Of those with the same time the first noted comes first."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[Entry[Key]] = []
        self._order = itertools.count()

    def __iter__(self) -> Iterator[Key]:
        return iter(self._due)

    def note(self, key: Key, due: float) -> bool:
        """Note when a key is due; tell whether that counts: where it is noted already, the earlier time does."""
        if due >= self._due.get(key, float("inf")):
            return False
        self._due[key] = due
        if len(self._heap) > 2 * len(self._due) + SUPERSEDED:
            self._heap = [entry for entry in self._heap if self.counts(entry)]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (due, next(self._order), key))
        return True

    def due(self, key: Key) -> float | None:
        """Return when a key is due, or None where it does not wait."""
        return self._due.get(key)

    def drop(self, key: Key) -> float | None:
        """Forget a key that waits no more, and return when it was due, or None where it did not wait."""
        return self._due.pop(key, None)

    def first(self) -> Entry[Key] | None:
        """Return the entry of the key that is due first, or None where none waits."""
        while self._heap and not self.counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def take(self) -> None:
        """Take the entry out of the way that is :meth:`first`; its key waits until it is dropped."""
        heapq.heappop(self._heap)

    def put_back(self, entry: Entry[Key]) -> None:
        """Let an entry that was taken have its place again, where it still counts."""
        heapq.heappush(self._heap, entry)

    def counts(self, entry: Entry[Key]) -> bool:
        """Tell whether an entry's key was not dropped since, nor noted for an earlier time."""
        return self._due.get(entry[2]) == entry[0]
