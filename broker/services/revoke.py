"""End single tokens before their time, for the client whose they are."""

from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.anchor import TOKEN_ID, grant_anchor, token_id_of
from broker.model.audit_record import Origin, Revoked
from broker.model.client import Client, ClientId, Grant, Revocation
from broker.model.sensitive import Sensitive
from broker.ports import AuditLog, Clock
from broker.services.introspect import Introspector
from broker.services.token_anchors import TokenAnchors


class RevocationMetrics(Protocol):
    """What is told about revocations."""

    def revoked(self, client: ClientId, grant: str) -> None:
        """Count a token that a client has ended."""


class Revoker:
    """Deletes the anchor of a token, which is found by the client's own UID: nobody reaches another client's.

    What was revoked already, never existed or is somebody else's gets the same answer, and costs the same calls.
    """

    def __init__(
        self,
        *,
        tokens: TokenAnchors,
        introspector: Introspector,
        audit: AuditLog,
        metrics: RevocationMetrics,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._introspector = introspector
        self._audit = audit
        self._metrics = metrics
        self._clock = clock

    async def by_id(self, client: Client, token_id: str, origin: Origin) -> None:
        """End the token of that id, if the client has one.

        Raises BrokerError: not_individually_revocable, broker_not_authorized, kubernetes_unavailable,
        kubernetes_timeout.
        """
        grants = [grant for grant in client.grants if grant.revocation is Revocation.TOKEN]
        if not TOKEN_ID.fullmatch(token_id) or not grants:
            raise _shared()
        for grant in grants:
            await self._end(client, grant, token_id, origin)

    async def by_token(self, client: Client, token: Sensitive, origin: Origin) -> None:
        """End a token, if it is the client's own and still good.

        Raises BrokerError like :meth:`by_id`.
        """
        found = await self._introspector.introspect(client, token)
        if found is None:
            return
        grant = next(grant for grant in client.grants if grant.name == found.grant)
        token_id = token_id_of(found.token.anchor_name, grant_anchor(client.uid, grant))
        if token_id is None:
            raise _shared()
        await self._end(client, grant, token_id, origin)

    async def _end(self, client: Client, grant: Grant, token_id: str, origin: Origin) -> None:
        if await self._tokens.delete(client, grant, token_id):
            self._metrics.revoked(client.id, grant.name)
            self._audit.revoked(Revoked(self._clock.now(), origin, client.id, grant.name, token_id, "by_client"))


def _shared() -> BrokerError:
    return BrokerError(
        Reason.NOT_INDIVIDUALLY_REVOCABLE,
        "This token shares its end with all others of its grant: only its owner can end them, together. "
        "A grant with revocation: Token gives each token an end of its own.",
    )
