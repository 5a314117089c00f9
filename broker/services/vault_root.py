"""The anchor above those of all versions of a copy in Vault: where it goes, all of them are worth nothing."""

from broker.errors import BrokerError
from broker.model.anchor import vault_anchor
from broker.model.decision import standing
from broker.model.token import Anchor
from broker.ports import Anchors, Clock, Leader, Registry
from broker.services.grant_book import GrantBook, not_ready
from broker.services.vault_copy import Target


class VaultRoots:
    """Makes such anchors, while this replica leads, for grants that tokens may be issued for."""

    def __init__(self, *, registry: Registry, anchors: Anchors, book: GrantBook, leader: Leader, clock: Clock) -> None:
        self._registry = registry
        self._anchors = anchors
        self._book = book
        self._leader = leader
        self._clock = clock

    def cleared(self, target: Target) -> None:
        """Raise BrokerError with the reason where no token may be issued for the grant."""
        if self._book.get(target.client, target.grant) is None:
            fault = self._book.fault(target.client, target.grant)
            raise fault.error() if fault else not_ready()

    async def root(self, target: Target) -> Anchor:
        """Return the anchor, made if need be, by the leader only.

        Where the client's tokens were ended while it was made, it is taken away again: who ends them has deleted what
        was there before. Raises BrokerError: anchor_missing, registry_stale, why the grant is barred, and those of
        :class:`broker.ports.Anchors`.
        """
        which = vault_anchor(target.client.uid, target.grant)
        if not self._leader.leading:
            found = await self._anchors.find(target.client, which)
            if found is None:
                raise not_ready()
            return found
        made = await self._anchors.ensure(target.client, which)
        try:
            self._still_wanted(target)
        except BrokerError:
            await self._anchors.delete(target.client.id.namespace, made.name, made.uid)
            raise
        return made

    def _still_wanted(self, target: Target) -> None:
        registration = self._registry.get(target.key.client)
        client = registration.client if registration is not None and not registration.deleting else None
        if client is None or client.uid != target.client.uid or client.grant(target.grant.name) != target.grant:
            raise not_ready()
        if standing(client, self._clock.now()) is not None:
            raise not_ready()
        self.cleared(target)
