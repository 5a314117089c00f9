"""End tokens: delete the anchors at the top, and the garbage collector deletes what hangs below them."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.anchor import AnchorId, Named, grant_anchor, trial_anchor, vault_anchor
from broker.model.audit_record import Origin, Revoked
from broker.model.client import ClientId
from broker.ports import Anchors, AuditLog, Clock
from broker.services.anchored import AnchoredGrants


class EndingMetrics(Protocol):
    """What is told about tokens that should have ended."""

    def orphans(self, grants: int) -> None:
        """Set of how many grants tokens may live that should not."""

    def ended(self, why: str) -> None:
        """Count a grant all of whose tokens were ended."""


@dataclass(frozen=True, slots=True)
class NotEnded:
    """A grant some of whose tokens may live yet, and what stood in the way.

    ``error`` is broker_not_authorized, kubernetes_unavailable or kubernetes_timeout.
    """

    grant: Named
    error: BrokerError


def may_pass(not_ended: Iterable[NotEnded]) -> BrokerError | None:
    """Return the first error that may pass by itself: not the lack of rights, which somebody has to give."""
    return next((it.error for it in not_ended if it.error.reason is not Reason.BROKER_NOT_AUTHORIZED), None)


def require_ended(not_ended: list[NotEnded]) -> None:
    """Raise BrokerError where something has not ended, so that it is tried again."""
    if not_ended:
        raise may_pass(not_ended) or not_ended[0].error


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
        *,
        anchored: AnchoredGrants,
    ) -> None:
        self._anchors = anchors
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._new_request_id = new_request_id
        self._anchored = anchored
        self._orphans: defaultdict[ClientId, set[str]] = defaultdict(set)

    async def end(self, client_id: ClientId, uid: str, grants: Iterable[Named], why: str) -> list[NotEnded]:
        """End all tokens of grants of the TokenClient with that UID, also those in Vault.

        Every anchor of each is tried. Returns the grants of which one is left; they are counted as orphans until
        they have ended, or may be issued for again.
        """
        return await self._end_all(client_id, uid, grants, why, sure=True)

    async def end_barred(self, client_id: ClientId, uid: str, grant: Named, why: str) -> list[NotEnded]:
        """End all tokens of a grant that may not be issued for, if there were any.

        Where the broker has no rights in the namespace, and no anchor of the grant is known, it had none to make
        any with either: that is no orphan, but tried again like the others.
        """
        return await self._end_all(client_id, uid, [grant], why, sure=self._anchored.known(client_id, uid, grant))

    def spare(self, client_id: ClientId, uid: str, grant: Named) -> None:
        """Take note that a grant has an anchor, and count it no more: its tokens may live again."""
        self._anchored.note(client_id, uid, grant)
        self._count(client_id, grant.name, orphan=False)

    def stand_back(self) -> None:
        """Count nothing: another replica ends tokens, and counts those that it cannot."""
        self._orphans.clear()
        self._metrics.orphans(0)

    def forget(self, client_id: ClientId) -> None:
        """Count nothing of a client that went."""
        for grant in tuple(self._orphans.get(client_id, ())):
            self._count(client_id, grant, orphan=False)
        self._orphans.pop(client_id, None)
        self._anchored.forget(client_id)

    async def _end_all(
        self, client_id: ClientId, uid: str, grants: Iterable[Named], why: str, *, sure: bool
    ) -> list[NotEnded]:
        all_failures: list[NotEnded] = []
        for grant in grants:
            failures = [NotEnded(grant, error) for error in await self._end(client_id, uid, grant, why)]
            self._count(client_id, grant.name, orphan=bool(failures) and (sure or may_pass(failures) is not None))
            if not failures:
                self._anchored.ended(client_id, uid, grant)
            all_failures += failures
        return all_failures

    async def _end(self, client_id: ClientId, uid: str, grant: Named, why: str) -> list[BrokerError]:
        """Delete the anchors at the top, and tell where there was one that tokens hung on."""
        failures: list[BrokerError] = []
        handed_out = await self._delete(client_id, grant_anchor(uid, grant), failures)
        in_vault = await self._delete(client_id, vault_anchor(uid, grant), failures)
        await self._delete(client_id, trial_anchor(uid, grant), failures)
        if handed_out or in_vault:
            self._tell(client_id, grant, why)
        return failures

    async def _delete(self, client_id: ClientId, which: AnchorId, failures: list[BrokerError]) -> bool:
        try:
            return await self._anchors.delete(client_id.namespace, which.name)
        except BrokerError as error:
            failures.append(error)
            return False

    def _tell(self, client_id: ClientId, grant: Named, why: str) -> None:
        self._metrics.ended(why)
        origin = Origin(self._new_request_id())
        self._audit.revoked(Revoked(self._clock.now(), origin, client_id, grant.name, "", why))

    def _count(self, client_id: ClientId, grant: str, *, orphan: bool) -> None:
        of_client = self._orphans[client_id] if orphan else self._orphans.get(client_id, set())
        if orphan is (grant in of_client):
            return
        if orphan:
            of_client.add(grant)
        else:
            of_client.discard(grant)
        self._metrics.orphans(sum(map(len, self._orphans.values())))
