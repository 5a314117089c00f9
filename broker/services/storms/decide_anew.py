"""Decide once more on a request that had to wait: by what is registered, allowed and in force now."""

from typing import Protocol

from broker.errors import BrokerError, ProofError, ProofFailure
from broker.model.client import Client, ClientId
from broker.model.decision import Allowed, Ask, Denied, Rules, decide, grant_problem, standing
from broker.model.proof import ProvedBy
from broker.ports import Clock, Registry
from broker.services.grant_book import not_ready


class Locks(Protocol):
    """What is needed of :mod:`broker.services.canary`."""

    def require(self) -> None:
        """Raise BrokerError(policy_missing) where the broker's own limits are not known to be in force."""


class Decider:
    """Decides from memory alone. ``locks`` is None where the configuration says that there are none."""

    def __init__(self, *, registry: Registry, rules: Rules, clock: Clock, locks: Locks | None) -> None:
        self._registry = registry
        self._rules = rules
        self._clock = clock
        self._locks = locks

    def decide(self, client: Client, ask: Ask, by: ProvedBy) -> tuple[Client, Allowed]:
        """Return the client as it is registered now, and what it is allowed.

        ``client`` is what ``by`` has proved. The proof itself is not at hand any more, so where what the client
        accepts has changed since, its caller has to come again.
        Raises BrokerError: the decision's reason, invalid_client, anchor_missing, registry_stale, policy_missing.
        """
        if self._locks is not None:
            self._locks.require()
        now = self._same(client)
        self._require_proof(client, now, by)
        decision = decide(now, ask, self._rules, self._clock.now())
        if isinstance(decision, Denied):
            raise BrokerError(decision.reason, decision.detail, limits=decision.limits)
        return now, decision

    def again(self, client: Client, allowed: Allowed) -> None:
        """Raise BrokerError where a client may not have any more what it was allowed, whoever asked and how.

        Raises what :meth:`decide` does; anchor_missing where the grant has changed: its caller has to come again.
        """
        if self._locks is not None:
            self._locks.require()
        now, grant = self._same(client), allowed.grant
        if now is not client and (now.proofs != client.proofs or now.grant(grant.name) != grant):
            raise not_ready()
        denied = standing(now, self._clock.now()) or grant_problem(now.id.namespace, grant, self._rules)
        if denied is not None:
            raise BrokerError(denied.reason, denied.detail)

    def registered(self, client_id: ClientId) -> Client | None:
        """Return a client as it is registered, or None where it is not, or is being deleted, or not valid.

        Raises BrokerError(registry_stale).
        """
        registration = self._registry.get(client_id)
        return None if registration is None or registration.deleting else registration.client

    def _same(self, client: Client) -> Client:
        now = self.registered(client.id)
        if now is None or now.uid != client.uid:
            raise ProofError(ProofFailure.UNKNOWN_CLIENT)
        return now

    def _require_proof(self, client: Client, now: Client, by: ProvedBy) -> None:
        if now is not client and now.proofs != client.proofs:
            raise not_ready()
        kinds = self._rules.limits(now.id.namespace).proofs
        if kinds is not None and by.method not in kinds:
            raise ProofError(ProofFailure.NOT_ACCEPTED)
