"""Hand out a token: decide, mint, audit, and only then return it."""

from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Issuance, Origin, RefusedRequest
from broker.model.client import Client, ClientId
from broker.model.decision import Allowed, Ask, Denied, Rules, decide
from broker.ports import AuditLog, Clock
from broker.services.mint import Issued
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.shared_tokens import SharedTokens


class IssueMetrics(Protocol):
    """What is told about issuing."""

    def issued(self, client: ClientId, grant: str) -> None:
        """Count a token that was handed out."""

    def reused(self, client: ClientId, grant: str) -> None:
        """Count a token that was handed out though somebody else has it, too."""

    def refused(self, client: ClientId, reason: Reason) -> None:
        """Count a request of an authenticated client that got no token."""


class CallersMinter(Protocol):
    """What is needed of :class:`broker.services.storms.gated.GatedMinter`."""

    async def mint(self, client: Client, allowed: Allowed) -> Issued:
        """Return a fresh token. Raises BrokerError."""

    def abandon(self, client: Client, issued: Issued) -> None:
        """End a token that is not handed out after all, where it has an end of its own."""


class Issuer:
    """Issues tokens to authenticated clients."""

    def __init__(
        self,
        *,
        minter: CallersMinter,
        shared: SharedTokens,
        rates: ClientRates,
        audit: AuditLog,
        metrics: IssueMetrics,
        clock: Clock,
        rules: Rules,
    ) -> None:
        self._minter = minter
        self._shared = shared
        self._rates = rates
        self._audit = audit
        self._metrics = metrics
        self._clock = clock
        self._rules = rules

    async def issue(self, client: Client, ask: Ask, origin: Origin) -> Issued:
        """Return a token: one of its own, unless the grant has ``reuse``.

        Raises BrokerError with the decision's reason, or the minter's, or the audit's.
        """
        try:
            allowed = self.permitted(decide(client, ask, self._rules, self._clock.now()))
            self._rates.take(client)
            issued = await self._counted(client, ask, allowed, origin)
        except BrokerError as error:
            self.note_refusal(client, ask, origin, error)
            raise
        self._metrics.issued(client.id, allowed.grant.name)
        if issued.reused:
            self._metrics.reused(client.id, allowed.grant.name)
        return issued

    def allowed(self, client: Client, ask: Ask, origin: Origin) -> Allowed:
        """Return what would be issued, and issue nothing. Raises BrokerError with the decision's reason."""
        try:
            return self.permitted(decide(client, ask, self._rules, self._clock.now()))
        except BrokerError as error:
            self.note_refusal(client, ask, origin, error)
            raise

    def permitted(self, decision: Allowed | Denied) -> Allowed:
        """Return what was allowed. Raises BrokerError where it was denied."""
        if isinstance(decision, Denied):
            raise BrokerError(decision.reason, decision.detail, limits=decision.limits)
        return decision

    def note_refusal(self, client: Client, ask: Ask, origin: Origin, error: BrokerError) -> None:
        """Count and audit a request of an authenticated client that got no token."""
        self._metrics.refused(client.id, error.reason)
        self._audit.refused(
            RefusedRequest(
                at=self._clock.now(),
                origin=origin,
                client=client.id,
                grant=ask.grant or "",
                reason=error.reason,
            )
        )

    async def _counted(self, client: Client, ask: Ask, allowed: Allowed, origin: Origin) -> Issued:
        """Return a token that was written down; one that is not handed out does not count against the client's rate."""
        by = origin.proved_by
        try:
            if allowed.grant.reuse_seconds and by is not None and by.tells_apart:
                issued = await self._shared.mint(client, ask, by)
            else:
                issued = await self._minter.mint(client, allowed)
            self._write_down(client, issued, origin)
        except BaseException:  # also where the caller is gone
            self._rates.give_back(client)
            raise
        return issued

    def _write_down(self, client: Client, issued: Issued, origin: Origin) -> None:
        try:
            self._audit.issued(self._record(client, issued, origin))
        except BrokerError:
            self._minter.abandon(client, issued)
            raise

    def _record(self, client: Client, issued: Issued, origin: Origin) -> Issuance:
        return Issuance(
            at=self._clock.now(),
            origin=origin,
            client=client.id,
            client_uid=client.uid,
            grant=issued.allowed.grant.name,
            subject=issued.subject,
            audience=issued.allowed.audience,
            requested_seconds=issued.allowed.ttl_seconds,
            granted_seconds=issued.granted_seconds,
            expires_at=issued.token.expires_at,
            id=issued.id,
            jti=issued.token.jti,
            token_sha256=issued.token.sha256,
            delivery="response",
            reused=issued.reused,
        )
