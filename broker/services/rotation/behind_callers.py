"""What rotation asks of the API server and of Vault, behind callers."""

from collections.abc import Mapping
from typing import Protocol

from broker.model.client import Client
from broker.model.decision import Allowed
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import StoredCopy
from broker.model.token import Anchor, MintedToken
from broker.ports import VaultStore
from broker.services.courtesy import Kind, Turns

MINTS, VAULT_CALLS = 4, 12
"""How many are made at a time while no callers come."""


class BelowMinter(Protocol):
    """Mints for copies (:class:`broker.services.mint.GrantMinter`)."""

    async def mint_below(self, client: Client, allowed: Allowed, anchor: Anchor) -> MintedToken:
        """Return a fresh token that is bound to an anchor."""


class CourteousMinter:
    """Mints for copies."""

    def __init__(self, minter: BelowMinter, turns: Turns) -> None:
        self._minter = minter
        self._turns = turns
        self._kind = Kind(MINTS)

    async def mint_below(self, client: Client, allowed: Allowed, anchor: Anchor) -> MintedToken:
        """See :meth:`broker.services.mint.GrantMinter.mint_below`."""
        async with self._turns.turn(self._kind):
            return await self._minter.mint_below(client, allowed, anchor)


class CourteousStore:
    """Looks at copies and writes versions; implements :class:`broker.ports.VaultStore`.

    What describes or removes a version follows at once: it completes what was begun.
    """

    def __init__(self, store: VaultStore, turns: Turns) -> None:
        self._store = store
        self._turns = turns
        self._kind = Kind(VAULT_CALLS)
        self.label = store.label
        self.remove = store.remove
        self.children = store.children
        self.reach_active = store.reach_active

    async def inspect(self, path: tuple[str, ...]) -> StoredCopy | None:
        """See :meth:`broker.ports.VaultStore.inspect`."""
        async with self._turns.turn(self._kind):
            return await self._store.inspect(path)

    async def write(self, path: tuple[str, ...], data: Mapping[str, Sensitive | str], cas: int) -> int:
        """See :meth:`broker.ports.VaultStore.write`."""
        async with self._turns.turn(self._kind):
            return await self._store.write(path, data, cas)
