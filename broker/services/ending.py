"""End tokens: delete the anchors at the top, and the garbage collector deletes what hangs below them."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import AnchorId, Named, grant_anchor, trial_anchor, vault_anchor
from broker.model.audit_record import Origin, Revoked
from broker.model.client import ClientId
from broker.model.former_grants import FormerGrant, GrantKey, grant_key
from broker.ports import Anchors, AuditLog, Clock, Leader
from broker.services.anchored import AnchoredGrants


class EndingMetrics(Protocol):
    """What is told about tokens that should have ended."""

    def orphans(self, client: ClientId, grants: int) -> None:
        """Set of how many grants of a client tokens may live that should not."""

    def no_orphans(self) -> None:
        """Drop of all clients what was set."""

    def ended(self, why: str) -> None:
        """Count a grant all of whose tokens were ended."""


@dataclass(frozen=True, slots=True)
class NotEnded:
    """A grant of the TokenClient with that UID some of whose tokens may live yet, and what stood in the way.

    ``fault`` is broker_not_authorized, kubernetes_unavailable or kubernetes_timeout.
    """

    uid: str
    grant: FormerGrant
    fault: Fault


def may_pass(not_ended: Iterable[NotEnded]) -> Fault | None:
    """Return the first fault that may pass by itself: not the lack of rights, which somebody has to give."""
    return next((it.fault for it in not_ended if _may_pass(it.fault)), None)


def require_ended(not_ended: list[NotEnded]) -> None:
    """Raise BrokerError where something has not ended, so that it is tried again."""
    if not_ended:
        raise (may_pass(not_ended) or not_ended[0].fault).error()


def _may_pass(fault: Fault) -> bool:
    return fault.reason is not Reason.BROKER_NOT_AUTHORIZED


def _another_leads() -> BrokerError:
    text = "Another replica leads, and ends tokens."
    return BrokerError(Reason.KUBERNETES_UNAVAILABLE, text, operator_detail=text)


class Ender:
    """Deletes anchors by the names that they must have; one that is not there is no error.

    So it may be interrupted anywhere and done again from the start, by another process too. What was there is
    written into the audit log.

    No UID is named, also where one is known: a name is that of one grant of one TokenClient (by its UID) and of nothing
    else, admission lets nobody but the broker make such a Secret, and tokens must end as well that hang on one which
    was made since, by another leader or by a call that came late.
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
        leader: Leader,
    ) -> None:
        self._anchors = anchors
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._new_request_id = new_request_id
        self._anchored = anchored
        self._leader = leader
        self._owed: defaultdict[ClientId, dict[GrantKey, str]] = defaultdict(dict)
        self._failed: defaultdict[ClientId, set[GrantKey]] = defaultdict(set)

    async def end(self, client_id: ClientId, uid: str, grants: Iterable[Named], why: str) -> list[NotEnded]:
        """End all tokens of grants of the TokenClient with that UID, also those in Vault.

        Every anchor of each is tried. Returns the grants of which one is left; they are counted as orphans, and owed
        (:meth:`pay`), until they have ended.
        """
        return await self._end_all(client_id, uid, grants, why, sure=True)

    async def end_barred(self, client_id: ClientId, uid: str, grant: Named, why: str) -> list[NotEnded]:
        """End all tokens of a grant that may not be issued for, if there were any.

        Where the broker has no rights in the namespace, and no anchor of the grant is known, it had none to make
        any with either: that is no orphan, but tried again like the others.
        """
        owed = grant_key(uid, grant) in self._owed.get(client_id, {})
        sure = owed or self._anchored.known(client_id, uid, grant)
        return await self._end_all(client_id, uid, [grant], why, sure=sure)

    def owe(self, client_id: ClientId, uid: str, grants: Iterable[Named], why: str) -> None:
        """Take note that grants have to be ended, even where the reason goes before there was time for it."""
        for grant in grants:
            self._owed[client_id].setdefault(grant_key(uid, grant), why)

    def owed(self, client_id: ClientId) -> dict[GrantKey, str]:
        """Return what has to be ended yet, and why; see :meth:`pay`."""
        return dict(self._owed.get(client_id, {}))

    async def pay(self, client_id: ClientId) -> list[NotEnded]:
        """End what is owed, whatever became of it since, and return what still has not ended."""
        owed = self.owed(client_id).items()
        return [it for (uid, grant), why in owed for it in await self.end(client_id, uid, [grant], why)]

    def stand_back(self) -> None:
        """Owe and count nothing: another replica ends tokens, and counts those that it cannot."""
        self._owed.clear()
        self._failed.clear()
        self._metrics.no_orphans()

    def forget(self, client_id: ClientId) -> None:
        """Owe and count nothing of a client that went."""
        for key in self._owed.pop(client_id, {}):
            self._count(client_id, key, failed=False)
        self._anchored.forget(client_id)

    async def _end_all(
        self, client_id: ClientId, uid: str, grants: Iterable[Named], why: str, *, sure: bool
    ) -> list[NotEnded]:
        not_ended: list[NotEnded] = []
        for grant in grants:
            key = grant_key(uid, grant)
            failures = await self._end(client_id, uid, grant, why)
            if failures:
                not_ended.append(NotEnded(*key, next(filter(_may_pass, failures), failures[0])))
            else:
                self._anchored.ended(client_id, uid, grant)
            # Who was the leader when it began and is none any more owes nothing: the next one does.
            failed = bool(failures) and (sure or any(map(_may_pass, failures))) and self._leader.leading
            if failed:
                self.owe(client_id, uid, [grant], why)
            elif client_id in self._owed:
                self._owed[client_id].pop(key, None)
            self._count(client_id, key, failed=failed)
        return not_ended

    async def _end(self, client_id: ClientId, uid: str, grant: Named, why: str) -> list[Fault]:
        """Delete the anchors at the top, and tell where there was one that tokens hung on."""
        failures: list[Fault] = []
        ended = False
        try:
            for which in (grant_anchor(uid, grant), vault_anchor(uid, grant)):
                ended = await self._delete(client_id, which, failures) or ended
        finally:  # also where this is given up for something more urgent
            if ended:
                self._tell(client_id, grant, why)
        await self._delete(client_id, trial_anchor(uid, grant), failures)
        return failures

    async def _delete(self, client_id: ClientId, which: AnchorId, failures: list[Fault]) -> bool:
        try:
            if not self._leader.leading:
                raise _another_leads()  # which may have made this very anchor since
            return await self._anchors.delete(client_id.namespace, which.name)
        except BrokerError as error:
            failures.append(Fault.of(error))
            return False

    def _tell(self, client_id: ClientId, grant: Named, why: str) -> None:
        self._metrics.ended(why)
        origin = Origin(self._new_request_id())
        self._audit.revoked(Revoked(self._clock.now(), origin, client_id, grant.name, "", why))

    def _count(self, client_id: ClientId, key: GrantKey, *, failed: bool) -> None:
        if failed is (key in self._failed.get(client_id, ())):
            return
        if failed:
            self._failed[client_id].add(key)
        else:
            self._failed[client_id].discard(key)
        self._metrics.orphans(client_id, len(self._failed[client_id]))
        if not self._failed[client_id]:
            del self._failed[client_id]
