"""End single tokens before their time, for the client whose they are."""

import re
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.anchor import TOKEN_ID, grant_anchor, token_id_of
from broker.model.audit_record import Origin, Revoked
from broker.model.client import Client, ClientId, Grant
from broker.model.sensitive import Sensitive
from broker.ports import AuditLog, Clock
from broker.services.introspect import Introspector
from broker.services.storms.gate import Gate
from broker.services.token_anchors import TokenAnchors

JTI = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
"""What the API server calls a token, and the broker one that shares its end."""


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
        gate: Gate,
        audit: AuditLog,
        metrics: RevocationMetrics,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._introspector = introspector
        self._gate = gate
        self._audit = audit
        self._metrics = metrics
        self._clock = clock

    async def by_id(self, client: Client, token_id: str, origin: Origin) -> None:
        """End the token of that id, if the client has one.

        It is looked for under each of the client's grants, however they revoke now: it may have been issued before
        that was changed. So the answer follows from what the id looks like, and from nothing else.
        Raises BrokerError: invalid_request, not_individually_revocable, overloaded, broker_not_authorized,
        kubernetes_unavailable, kubernetes_timeout.
        """
        if not TOKEN_ID.fullmatch(token_id):
            raise _shared() if JTI.fullmatch(token_id) else _no_id()
        for grant in client.grants:
            await self._end(client, grant, token_id, origin)

    async def by_token(self, client: Client, token: Sensitive, origin: Origin) -> None:
        """End a token, if it is the client's own and still good.

        Raises BrokerError like :meth:`by_id`, but for invalid_request.
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
        async with self._gate.turn(client.id):
            was_there = await self._tokens.delete(client, grant, token_id)
        if was_there:
            self._metrics.revoked(client.id, grant.name)
            self._audit.revoked(Revoked(self._clock.now(), origin, client.id, grant.name, token_id, "by_client"))


def _shared() -> BrokerError:
    return BrokerError(
        Reason.NOT_INDIVIDUALLY_REVOCABLE,
        "This token shares its end with all others of its grant: only its owner can end them, together. "
        "A grant with revocation: Token gives each token an end of its own.",
    )


def _no_id() -> BrokerError:
    return BrokerError(
        Reason.INVALID_REQUEST,
        "This is not the id of a token: they are 24 hexadecimal digits, or a UUID where the token shares its end.",
    )
