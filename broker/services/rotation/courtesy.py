"""Callers first: what rotation asks of the API server and of Vault waits while callers have requests in flight.

A renewal has hours, a caller is waiting. Each wait is short, so that callers who never stop cannot hold up rotation.
And while callers come at all, few calls are made at a time: one who comes now has no more than those before him.
docs/performance.md has what that costs and gains.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from broker.model.client import Client
from broker.model.decision import Allowed
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import StoredCopy
from broker.model.token import Anchor, MintedToken
from broker.ports import VaultStore

STAND_BACK_SECONDS = 0.1
"""How long one call stands back at most: one token at a time makes 10 copies a second, whoever calls how often."""

LATELY_SECONDS = 1.0
"""For so long after a caller another one is expected."""


@dataclass(frozen=True, slots=True)
class AtATime:
    """How many calls are made at a time while callers come, and while none do."""

    few: int
    many: int


MINTS, VAULT_CALLS = AtATime(1, 4), AtATime(2, 12)


class Callers(Protocol):
    """Knows of callers (:class:`broker.services.storms.gate.Gate`)."""

    async def quiet(self, seconds: float) -> None:
        """Wait until none has a request in flight, for so many seconds at most."""

    def lately(self, seconds: float) -> bool:
        """Tell whether one has, or one came in so many seconds."""


class BelowMinter(Protocol):
    """Mints for copies (:class:`broker.services.mint.GrantMinter`)."""

    async def mint_below(self, client: Client, allowed: Allowed, anchor: Anchor) -> MintedToken:
        """Return a fresh token that is bound to an anchor."""


_AT_ONCE: ContextVar[bool] = ContextVar("at_once", default=False)


@contextmanager
def at_once() -> Iterator[None]:
    """Let no call in the block stand back: a caller waits for what it does himself, or it ends something."""
    token = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


class Turns:
    """Lets rotation make calls: so many at a time, and behind callers."""

    def __init__(self, callers: Callers, at_a_time: AtATime) -> None:
        self._callers = callers
        self._at_a_time = at_a_time
        self._taken = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        if _AT_ONCE.get():
            yield
            return
        async with self._changed:
            await self._changed.wait_for(lambda: self._taken < self._most())
            self._taken += 1
        try:
            await self._callers.quiet(STAND_BACK_SECONDS)
            yield
        finally:
            self._taken -= 1
            async with self._changed:
                self._changed.notify_all()

    def _most(self) -> int:
        return self._at_a_time.few if self._callers.lately(LATELY_SECONDS) else self._at_a_time.many


class CourteousMinter:
    """Mints for copies."""

    def __init__(self, minter: BelowMinter, callers: Callers) -> None:
        self._minter = minter
        self._turns = Turns(callers, MINTS)

    async def mint_below(self, client: Client, allowed: Allowed, anchor: Anchor) -> MintedToken:
        """See :meth:`broker.services.mint.GrantMinter.mint_below`."""
        async with self._turns.turn():
            return await self._minter.mint_below(client, allowed, anchor)


class CourteousStore:
    """Looks at copies and writes versions; implements :class:`broker.ports.VaultStore`.

    What describes or removes a version follows at once: it completes what was begun.
    """

    def __init__(self, store: VaultStore, callers: Callers) -> None:
        self._store = store
        self._turns = Turns(callers, VAULT_CALLS)
        self.label = store.label
        self.remove = store.remove
        self.children = store.children
        self.reach_active = store.reach_active

    async def inspect(self, path: tuple[str, ...]) -> StoredCopy | None:
        """See :meth:`broker.ports.VaultStore.inspect`."""
        async with self._turns.turn():
            return await self._store.inspect(path)

    async def write(self, path: tuple[str, ...], data: Mapping[str, Sensitive | str], cas: int) -> int:
        """See :meth:`broker.ports.VaultStore.write`."""
        async with self._turns.turn():
            return await self._store.write(path, data, cas)
