"""Callers first: what rotation asks of the API server and of Vault waits while callers have requests in flight.

A renewal has hours, a caller is waiting. Each wait is short, so that callers who never stop cannot hold up rotation.
"""

from collections.abc import Mapping
from typing import Protocol

from broker.model.client import Client
from broker.model.decision import Allowed
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import StoredCopy
from broker.model.token import Anchor, MintedToken
from broker.ports import VaultStore

STAND_BACK_SECONDS = 0.1
"""How long one call stands back at most. Eight copies at a time, three calls each: at least 25 a second."""


class Callers(Protocol):
    """Knows whether callers have requests in flight (:class:`broker.services.storms.gate.Gate`)."""

    async def quiet(self, seconds: float) -> None:
        """Wait until none has, for so many seconds at most."""


class BelowMinter(Protocol):
    """Mints for copies (:class:`broker.services.mint.GrantMinter`)."""

    async def mint_below(self, client: Client, allowed: Allowed, anchor: Anchor) -> MintedToken:
        """Return a fresh token that is bound to an anchor."""


class CourteousMinter:
    """Mints for copies when no caller waits."""

    def __init__(self, minter: BelowMinter, callers: Callers) -> None:
        self._minter = minter
        self._callers = callers

    async def mint_below(self, client: Client, allowed: Allowed, anchor: Anchor) -> MintedToken:
        """See :meth:`broker.services.mint.GrantMinter.mint_below`."""
        await self._callers.quiet(STAND_BACK_SECONDS)
        return await self._minter.mint_below(client, allowed, anchor)


class CourteousStore:
    """Looks at copies and writes versions when no caller waits; implements :class:`broker.ports.VaultStore`.

    What describes or removes a version follows at once: it mends what was begun.
    """

    def __init__(self, store: VaultStore, callers: Callers) -> None:
        self._store = store
        self._callers = callers
        self.label = store.label
        self.remove = store.remove
        self.children = store.children
        self.reach_active = store.reach_active

    async def inspect(self, path: tuple[str, ...]) -> StoredCopy | None:
        """See :meth:`broker.ports.VaultStore.inspect`."""
        await self._callers.quiet(STAND_BACK_SECONDS)
        return await self._store.inspect(path)

    async def write(self, path: tuple[str, ...], data: Mapping[str, Sensitive | str], cas: int) -> int:
        """See :meth:`broker.ports.VaultStore.write`."""
        await self._callers.quiet(STAND_BACK_SECONDS)
        return await self._store.write(path, data, cas)
