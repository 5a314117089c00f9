"""Hand out a token: decide, mint, audit, and only then return it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.client import Client, ClientId
from broker.model.decision import Allowed, Ask, Denied, Rules, decide
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.ports import AuditLog, Clock, Issuance, Minter, Origin, RefusedRequest
from broker.services.anchor_book import AnchorBook


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what was decided about it."""

    token: MintedToken
    allowed: Allowed
    namespace: str
    subject: str


class IssueMetrics(Protocol):
    """What is told about issuing."""

    def issued(self, client: ClientId, grant: str) -> None:
        """Count a token that was handed out."""

    def refused(self, client: ClientId, reason: Reason) -> None:
        """Count a request of an authenticated client that got no token."""


class Issuer:
    """Issues tokens to authenticated clients. ``recheck`` is called when a grant's set-up turns out broken."""

    def __init__(
        self,
        *,
        minter: Minter,
        anchors: AnchorBook,
        audit: AuditLog,
        metrics: IssueMetrics,
        clock: Clock,
        rules: Rules,
        recheck: Callable[[ClientId], None],
    ) -> None:
        self._minter = minter
        self._anchors = anchors
        self._audit = audit
        self._metrics = metrics
        self._clock = clock
        self._rules = rules
        self._recheck = recheck

    async def issue(self, client: Client, ask: Ask, origin: Origin) -> Issued:
        """Return a fresh token. Raises BrokerError with the decision's reason, or the minter's, or the audit's."""
        try:
            allowed = self.permitted(decide(client, ask, self._rules, self._clock.now()))
            issued = await self._mint(client, allowed)
            self._audit.issued(self._record(client, issued, origin))
        except BrokerError as error:
            self.note_refusal(client, ask, origin, error)
            raise
        self._metrics.issued(client.id, allowed.grant.name)
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

    async def _mint(self, client: Client, allowed: Allowed) -> Issued:
        grant = allowed.grant
        anchor = self._anchors.get(client, grant.name)
        if anchor is None:
            self._recheck(client.id)
            raise _not_ready()
        spec = TokenSpec(client.id.namespace, grant.service_account, allowed.audience, allowed.ttl_seconds, anchor)
        try:
            token = await self._minter.mint(spec)
        except BrokerError as error:
            self._learn(client, grant.name, anchor, error)
            raise
        return Issued(token, allowed, spec.namespace, spec.subject)

    def _learn(self, client: Client, grant: str, anchor: Anchor, error: BrokerError) -> None:
        if error.reason is Reason.ANCHOR_MISSING:
            self._anchors.drop(client, grant, anchor)
        if _is_worth_a_recheck(error):
            self._recheck(client.id)

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
            granted_seconds=issued.token.granted_seconds,
            expires_at=issued.token.expires_at,
            jti=issued.token.jti,
            token_sha256=issued.token.sha256,
            delivery="response",
        )


def _not_ready() -> BrokerError:
    return BrokerError(
        Reason.ANCHOR_MISSING,
        "The grant is being prepared; try again shortly.",
        operator_detail="The grant's anchor was not made yet; the TokenClient's condition says why.",
        retry_after=2,
    )


def _is_worth_a_recheck(error: BrokerError) -> bool:
    """Tell whether a failed mint says something about the grant's set-up, so that its status should follow."""
    return error.reason in {
        Reason.SERVICE_ACCOUNT_MISSING,
        Reason.BROKER_NOT_AUTHORIZED,
        Reason.ANCHOR_MISSING,
        Reason.KUBERNETES_REJECTED,
    }
