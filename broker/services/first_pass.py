"""The first visit to each client that was there at start, where nothing can be issued for one before it."""

import asyncio
from collections.abc import Iterable

from broker.errors import Fault, Reason
from broker.model.client import ClientId


class FirstPass:
    """Counts down. A visit that failed counts, too: one client that cannot be served holds up no other."""

    def __init__(self) -> None:
        self._left: set[ClientId] | None = None
        self._all = 0
        self.over = asyncio.Event()
        """Set once each of them was visited."""

    def begin(self, clients: Iterable[ClientId]) -> None:
        """Take note of who is there; once."""
        self._left = set(clients)
        self._all = len(self._left)
        self._look()

    def visited(self, client_id: ClientId) -> None:
        """Take note of a visit, however it went."""
        if self._left:
            self._left.discard(client_id)
            self._look()

    def left(self) -> Fault | None:
        """Return what is left to do; None where it is over."""
        if self.over.is_set():
            return None
        how_many = f"{len(self._left)} of {self._all}" if self._left else "the"
        return Fault(Reason.ANCHOR_MISSING, f"{how_many} clients are not looked at yet")

    def _look(self) -> None:
        if not self._left:
            self.over.set()
