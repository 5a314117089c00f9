"""What is known of each client, gathered from the services and written to its status and Events."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Protocol

from broker.errors import BrokerError, Fault, Reason
from broker.model.client import Client, ClientId
from broker.model.condition import Condition
from broker.model.former_grants import FormerGrant
from broker.model.prepared import Prepared
from broker.model.proof_policy import ProofPolicy
from broker.model.status import (
    ACCOUNT_FINDINGS,
    AccessFacts,
    Facts,
    GrantFacts,
    conditions,
    is_known,
    listing_all,
    status_document,
)
from broker.model.vault_status import VaultFacts
from broker.ports import Clock, EventRecorder, Leader, Registration, Registry, StatusWriter
from broker.services.by_grant import keep_granted
from broker.services.ending import NotEnded
from broker.services.event_notes import EVENT_NOTES
from broker.services.overtaken import AGAIN_SECONDS, Overtaken
from broker.services.rush import Rush
from broker.services.status_pace import StatusPace
from broker.services.workqueue import WorkQueue

RECHECK_SECONDS = 60.0
"""A status is looked at again this often, because time alone can change it (a copy in Vault expires)."""

ENDING_NOW = "they are being ended."
"""What is said of tokens while nobody knows yet whether they can be ended."""


class ReadinessMetrics(Protocol):
    """What is told about clients."""

    def client_ready(self, client: ClientId, *, ready: bool) -> None:
        """Set whether a client is ready."""

    def client_conditions(self, client: ClientId, not_true: Collection[tuple[str, str]]) -> None:
        """Set which conditions of a client are not True: type and reason of each."""

    def forget(self, client: ClientId) -> None:
        """Drop what is shown of a client that went."""

    def nobody_ready(self) -> None:
        """Drop of all clients whether they are ready, and why not."""


class StatusBoard:
    """Collects facts and keeps each TokenClient's status true to them.

    Facts come in from memory-only calls (:meth:`rehearsed`, :meth:`vault`); writing happens in :meth:`write`,
    which the board's queue calls, so that a slow API server holds up nobody. Only the leader writes and tells, and
    only of clients that it has looked at itself: else it would take back what the leader before it has said.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        writer: StatusWriter,
        events: EventRecorder,
        clock: Clock,
        metrics: ReadinessMetrics,
        proofs: Callable[[str], ProofPolicy],
        leader: Leader,
        rush: Rush,
    ) -> None:
        self._registry = registry
        self._writer = writer
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._proofs = proofs
        self._leader = leader
        self._grants: dict[ClientId, dict[str, GrantFacts]] = {}
        self._ended: dict[ClientId, frozenset[FormerGrant]] = {}
        self._unended: dict[ClientId, tuple[str, ...]] = {}
        self._told: defaultdict[ClientId, dict[str, tuple[str, str]]] = defaultdict(dict)
        self._pace = StatusPace(clock, rush)
        self._overtaken = Overtaken(clock)
        self.queue: WorkQueue[ClientId] = WorkQueue("status", self.write, workers=4)

    def rehearsed(
        self,
        client_id: ClientId,
        grant: str,
        fault: Fault | None,
        access: AccessFacts | None,
        prepared: Prepared | None = None,
    ) -> None:
        """Note how trying out a grant went; ``fault`` is None where it can be issued for.

        ``access`` is what was found out about its account, None where the trial did not get so far; ``prepared`` by
        what it may be issued for now, None where it may not.
        """
        facts = self._facts_of(client_id, grant)
        overtaken = fault is not None and fault.reason in ACCOUNT_FINDINGS
        known = facts.access if access is None and not overtaken else access
        if self._note(client_id, grant, replace(facts, rehearsed=True, fault=fault, access=known, prepared=prepared)):
            self._pace.news(client_id)

    def withholding(self, client_id: ClientId) -> None:
        """Note that a client may have no token, and that those which it has are being ended."""
        self._pace.news(client_id)
        self._unended.setdefault(client_id, (ENDING_NOW,))
        for grant, facts in self._grants.get(client_id, {}).items():
            self._grants[client_id][grant] = replace(facts, prepared=None)

    def resumed(self, client_id: ClientId) -> None:
        """Note that a client may have tokens: what was said of their end is over."""
        if self._unended.pop(client_id, None) is not None:
            self._pace.news(client_id)

    def withheld(self, client_id: ClientId, not_ended: Iterable[NotEnded]) -> None:
        """Note what came of that, and write it."""
        self._pace.news(client_id)
        self._unended[client_id] = tuple(f"grant {it.grant.name}: {it.fault.message}" for it in not_ended)
        self.queue.add(client_id)

    def ended(self, client_id: ClientId, grants: Iterable[FormerGrant]) -> None:
        """Note that the tokens of grants which a client has no more have ended."""
        before, self._ended[client_id] = self._ended.get(client_id), frozenset(grants)
        if before != self._ended[client_id]:
            self._pace.news(client_id)

    def vault(self, client_id: ClientId, grant: str, facts: VaultFacts | None) -> None:
        """Note the state of a grant's copy in Vault; None where it was removed."""
        if self._note(client_id, grant, replace(self._facts_of(client_id, grant), vault=facts)):
            self._pace.copy_is(client_id, grant, good=facts is not None and not _is_trouble(facts))

    def changed(self, client_id: ClientId) -> None:
        """Take note that something new is known of a registration: a status that was overtaken is written now."""
        if self._overtaken.forget(client_id):
            self.queue.add(client_id, AGAIN_SECONDS)

    def keep(self, client: Client) -> None:
        """Drop what is known of grants that a client has no more."""
        keep_granted(client, self._grants.get(client.id, {}))

    def forget(self, client_id: ClientId) -> None:
        """Drop what is known of a client that went."""
        self._grants.pop(client_id, None)
        self._ended.pop(client_id, None)
        self._unended.pop(client_id, None)
        self._told.pop(client_id, None)
        self._pace.forget(client_id)
        self._overtaken.forget(client_id)
        self._metrics.forget(client_id)
        self.queue.forget(client_id)

    def start_over(self) -> None:
        """Drop what is known of all: this replica leads from now on, or no more, and another one knew better."""
        self._metrics.nobody_ready()
        self._grants.clear()
        self._ended.clear()
        self._unended.clear()
        self._told.clear()

    def facts(self, registration: Registration) -> Facts:
        """Return what is known of a client at the moment."""
        client = registration.client
        known = self._grants.get(registration.id, {})
        grants = {grant.name: known[grant.name] for grant in client.grants if grant.name in known} if client else {}
        ended = self._ended.get(registration.id, frozenset())
        return Facts(
            generation=registration.generation,
            client=client,
            invalid=registration.fault,
            grants=grants,
            proofs=self._proofs(registration.id.namespace),
            ended=ended,
            suspended=registration.suspended,
            unended=self._unended.get(registration.id),
        )

    def trial_fault(self, client_id: ClientId, grant: str) -> Fault | None:
        """Return what trying out a mint met last, or None."""
        return self._facts_of(client_id, grant).fault

    async def write_down(self, registration: Registration) -> None:
        """List all grants in the status of a resource that is still as it was seen, and say nothing new of them.

        Raises BrokerError: kubernetes_unavailable (also where it has changed), kubernetes_timeout.
        """
        if registration.client is None:
            raise RuntimeError("what is not valid has no grants to list")
        ended = self._ended.get(registration.id, frozenset())
        status = listing_all(registration.client, registration.status, ended)
        if not await self._writer.write(registration, status):
            text = "The TokenClient has changed since it was seen, or is gone."
            raise BrokerError(Reason.KUBERNETES_UNAVAILABLE, text, operator_detail=text)

    async def write(self, client_id: ClientId) -> float | None:
        """Bring the resource's status up to date; the queue's handler."""
        registration = self._registry.get(client_id)
        if registration is None:
            self.forget(client_id)
            return None
        wait = self._overtaken.wait(registration) or self._pace.stands_back(registration)
        return min(wait, RECHECK_SECONDS) if wait else await self._write(registration)

    async def _write(self, registration: Registration) -> float:
        client_id = registration.id
        facts, now = self.facts(registration), self._clock.now()
        if not self._leader.leading or not is_known(facts, now):
            return RECHECK_SECONDS
        registration = replace(registration, status=dict(registration.status.items()))
        ready, *parts = conditions(facts, now)
        self._metrics.client_ready(client_id, ready=ready.status == "True")
        wrong = {(one.type, one.reason) for one in (ready, *parts) if one.status != "True"}
        self._metrics.client_conditions(client_id, wrong)
        status = status_document(facts, now, registration.status)
        wait = self._pace.wait(registration, status) if status != registration.status else 0.0
        if wait > 0:
            return wait
        told = self._pace.begin(client_id)  # not before: what is not said yet is news still
        try:
            if status != registration.status and not await self._writer.write(registration, status):
                self._overtaken.note(registration)
                self._pace.overtaken(client_id, told)
                return AGAIN_SECONDS
            await self._tell_all(registration, ready, parts)
        except BrokerError:
            self._pace.untold(client_id, told)
            raise
        return RECHECK_SECONDS

    def _facts_of(self, client_id: ClientId, grant: str) -> GrantFacts:
        return self._grants.get(client_id, {}).get(grant, GrantFacts())

    def _note(self, client_id: ClientId, grant: str, facts: GrantFacts) -> bool:
        """Remember facts, and see to it that they are written; tell whether they are others than before."""
        if self._facts_of(client_id, grant) == facts:
            return False
        self._grants.setdefault(client_id, {})[grant] = facts
        self.queue.add(client_id)
        return True

    async def _tell_all(self, registration: Registration, ready: Condition, parts: Iterable[Condition]) -> None:
        await self._tell(registration, ready)
        for part in parts:
            await self._tell(registration, part, repeated=part.type == "Authorized" or part.reason == ready.reason)

    async def _tell(self, registration: Registration, condition: Condition, *, repeated: bool = False) -> None:
        """Record an Event where a condition changed; what Ready said already is ``repeated`` and is not said again."""
        said = (condition.status, condition.reason)
        told = self._told[registration.id].get(condition.type) or _seen_before(registration, condition.type)
        self._told[registration.id][condition.type] = said
        note = EVENT_NOTES.get(condition.reason)
        if note is None or told == said or repeated:
            return
        await self._events.record(registration, condition.reason, note, warning=condition.status != "True")


def _is_trouble(facts: VaultFacts) -> bool:
    """Tell whether something is the matter with a copy itself: a Vault that is away is away for all."""
    return facts.fault is not None and facts.fault.reason is not Reason.VAULT_UNAVAILABLE


def _seen_before(registration: Registration, condition_type: str) -> tuple[str, str] | None:
    """Return what the resource said already, so that a restart does not repeat every Event."""
    for condition in registration.status.get("conditions", ()):
        if condition.get("type") == condition_type:
            return condition.get("status", ""), condition.get("reason", "")
    return None
