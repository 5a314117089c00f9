"""End tokens: delete the anchors at the top, and the garbage collector deletes what hangs below them."""

from collections.abc import Callable, Iterable
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.anchor import Named, grant_anchor, trial_anchor, vault_anchor
from broker.model.audit_record import Origin, Revoked
from broker.model.client import ClientId
from broker.ports import Anchors, AuditLog, Clock


class EndingMetrics(Protocol):
    """What is told about tokens that should have ended."""

    def orphans(self, grants: int) -> None:
        """Set of how many grants tokens may live that should not."""

    def ended(self, why: str) -> None:
        """Count a grant all of whose tokens were ended."""


class Ender:
    """Deletes anchors by the names that they must have; one that is not there is no error.

    So it may be interrupted anywhere and done again from the start, by another process too. What was there is
    written into the audit log.
    """

    def __init__(
        self,
        anchors: Anchors,
        audit: AuditLog,
        clock: Clock,
        metrics: EndingMetrics,
        new_request_id: Callable[[], str],
    ) -> None:
        self._anchors = anchors
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._new_request_id = new_request_id
        self._orphans: set[tuple[ClientId, str]] = set()

    async def end_barred(self, client_id: ClientId, uid: str, grant: Named, why: str) -> None:
        """End all tokens of a grant that may not be issued for, if there were any.

        Where the broker has no rights in the namespace, it had none to make anchors with either, as far as is known:
        that is no orphan. Raises BrokerError: kubernetes_unavailable, kubernetes_timeout.
        """
        try:
            await self.end(client_id, uid, [grant], why)
        except BrokerError as error:
            if error.reason is not Reason.BROKER_NOT_AUTHORIZED:
                raise
            self._note(self._orphans - {(client_id, grant.name)})

    async def end(self, client_id: ClientId, uid: str, grants: Iterable[Named], why: str) -> None:
        """End all tokens of grants of the TokenClient with that UID, also those in Vault.

        Each is tried. Raises BrokerError, the first: broker_not_authorized, kubernetes_unavailable,
        kubernetes_timeout; then those grants are counted as orphans until it succeeds, or they may be issued for again.
        """
        failures = [await self._try(client_id, uid, grant, why) for grant in grants]
        for failure in failures:
            if failure is not None:
                raise failure

    async def end_or_leave(self, client_id: ClientId, uid: str, grants: Iterable[Named], why: str) -> None:
        """End all tokens of a client that is being deleted.

        Where the broker has no rights there any more, they are left to the garbage collector, which deletes the
        anchors with the TokenClient. Raises BrokerError: kubernetes_unavailable, kubernetes_timeout.
        """
        try:
            await self.end(client_id, uid, grants, why)
        except BrokerError as error:
            if error.reason is not Reason.BROKER_NOT_AUTHORIZED:
                raise
        self.forget(client_id)

    def spare(self, client_id: ClientId, grant: str) -> None:
        """Count a grant no more: its tokens may live again."""
        self._note(self._orphans - {(client_id, grant)})

    def stand_back(self) -> None:
        """Count nothing: another replica ends tokens, and counts those that it cannot."""
        self._note(set())

    def forget(self, client_id: ClientId) -> None:
        """Count nothing of a client that went."""
        self._note({key for key in self._orphans if key[0] != client_id})

    async def _try(self, client_id: ClientId, uid: str, grant: Named, why: str) -> BrokerError | None:
        key = (client_id, grant.name)
        try:
            if await self._end(client_id.namespace, uid, grant):
                self._tell(client_id, grant, why)
        except BrokerError as error:
            self._note(self._orphans | {key})
            return error
        self._note(self._orphans - {key})
        return None

    async def _end(self, namespace: str, uid: str, grant: Named) -> bool:
        """Delete the anchors at the top, and tell whether there was one that tokens hung on."""
        handed_out = await self._anchors.delete(namespace, grant_anchor(uid, grant).name)
        in_vault = await self._anchors.delete(namespace, vault_anchor(uid, grant).name)
        await self._anchors.delete(namespace, trial_anchor(uid, grant).name)
        return handed_out or in_vault

    def _tell(self, client_id: ClientId, grant: Named, why: str) -> None:
        self._metrics.ended(why)
        origin = Origin(self._new_request_id())
        self._audit.revoked(Revoked(self._clock.now(), origin, client_id, grant.name, "", why))

    def _note(self, orphans: set[tuple[ClientId, str]]) -> None:
        if orphans != self._orphans:
            self._orphans = orphans
            self._metrics.orphans(len(orphans))
