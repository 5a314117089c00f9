"""The anchor above those of all versions of a copy: where it is deleted, every token in Vault is worth nothing."""

from broker.errors import BrokerError
from broker.model.anchor import vault_anchor
from broker.model.decision import standing
from broker.model.token import Anchor
from broker.ports import Anchors, Clock, Leader, Registry
from broker.services.grant_book import GrantBook, not_ready
from broker.services.rotation.copy import Target


class VaultRoots:
    """Makes it for grants that may be issued for, and only while this replica leads."""

    def __init__(self, *, registry: Registry, anchors: Anchors, book: GrantBook, leader: Leader, clock: Clock) -> None:
        self._registry = registry
        self._anchors = anchors
        self._book = book
        self._leader = leader
        self._clock = clock

    def looked_at(self, target: Target) -> bool:
        """Tell whether it is known whether tokens may be issued for the grant."""
        client, grant = target.client, target.grant
        return self._book.get(client, grant) is not None or self._book.fault(client, grant) is not None

    def require(self, target: Target) -> None:
        """Raise BrokerError with the reason where no token may be issued for the grant."""
        if self._book.get(target.client, target.grant) is None:
            raise self._book.refusal(target.client, target.grant)

    async def ensure(self, target: Target) -> Anchor:
        """Return the anchor above those of all versions.

        Raises BrokerError: anchor_missing, registry_stale, and those of :meth:`broker.ports.Anchors.ensure`.
        """
        which = vault_anchor(target.client.uid, target.grant)
        found = await self._anchors.find(target.client, which)
        if found is not None:  # what ends tokens meanwhile ends this one by its name
            self._require_unchanged(target)
            return found
        if not self._leader.leading:
            raise not_ready()
        made = await self._anchors.ensure(target.client, which)
        try:
            self._require_unchanged(target)
        except BrokerError:  # tokens may have been ended while it was made, and nothing hangs below it yet
            await self._anchors.delete(target.client.id.namespace, made.name, made.uid)
            raise
        return made

    def _require_unchanged(self, target: Target) -> None:
        """Raise BrokerError where the client is not what it was, or may have no token of the grant any more."""
        registration = self._registry.get(target.key.client)
        client = registration.client if registration is not None and not registration.deleting else None
        grant = client.grant(target.grant.name) if client is not None and client.uid == target.client.uid else None
        if client is None or standing(client, self._clock.now()) is not None or grant != target.grant:
            raise not_ready()
        self.require(target)
