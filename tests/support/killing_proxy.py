"""A proxy before the real API server that lets a broker come so far and no further, so that it can be killed there."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fault_proxy import FaultProxy, Server
from tests.support.scripted import Reply

_NAMESPACE = re.compile(r"[A-Z]+ \S*/namespaces/([^/ ]+)/")
_CHANGES_NOTHING = re.compile(r"GET |\S+ \S*(\?dryRun=All$|/events(\?|$)|-b\d+$)")
"""Reads, trials, Events, and the deletion of last week's buckets, of which a new client has none."""


def about(namespace: str) -> Callable[[str], bool]:
    """Return what tells calls about clients of a namespace from all others."""
    return lambda line: f"/namespaces/{namespace}/" in line and "/events" not in line


@dataclass(slots=True)
class Cut:
    """The calls that change something in one namespace; from the ``at``-th on, from 1, nothing goes through any more.

    Before and after a call that changes nothing the API server is the same: to be killed there is nothing else.
    """

    at: int
    calls: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def holds_back(self, line: str) -> bool:
        """Take note of a call, and tell whether it has to wait."""
        if not self.reached.is_set() and not _CHANGES_NOTHING.match(line):
            self.calls.append(line)
            if len(self.calls) == self.at:
                self.reached.set()
        return self.reached.is_set()


class KillingProxy(FaultProxy):
    """Keeps request lines, and holds back calls.

    Each namespace has a cut of its own: so one killed broker has come to the end of its life at as many places.
    """

    def __init__(self, server: Server, ca_file: Path) -> None:
        super().__init__(server, ca_file)
        self.arm(lambda _: False)
        self._cuts: dict[str, Cut] = {}
        self._serving: set[asyncio.Task[None] | None] = set()

    def arm(self, counts: Callable[[str], bool]) -> list[str]:
        """Begin to count anew, and return the list that the calls are kept in."""
        self._counts = counts
        self._calls: list[str] = []
        return self._calls

    def cut(self, namespace: str, at: int = 0) -> Cut:
        """Hold back what concerns a namespace from the ``at``-th call on, or nothing where it is 0."""
        self._cuts[namespace] = Cut(at)
        return self._cuts[namespace]

    def mend(self) -> None:
        """Close the connections of the broker that is no more, and hold nothing back any more."""
        self._cuts.clear()
        for task in filter(None, self._serving):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        try:
            await super()._serve(reader, writer)
        finally:
            self._serving.discard(task)

    def _fault_for(self, request: bytes) -> Reply | None:
        line = request.split(b" HTTP/", 1)[0].decode()
        if self._counts(line):
            self._calls.append(line)
        where = _NAMESPACE.match(line)
        cut = self._cuts.get(where[1]) if where else None
        return _holds if cut is not None and cut.holds_back(line) else super()._fault_for(request)


async def _holds(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()
