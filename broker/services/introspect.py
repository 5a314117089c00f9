"""Whether a token that a client holds is one of its own, and still good."""

from dataclasses import dataclass

from broker.model.account import account_user
from broker.model.anchor import grant_anchor, is_below, vault_anchor
from broker.model.client import Client, ClientId, Grant
from broker.model.sensitive import Sensitive
from broker.ports import LiveToken, Reviewer
from broker.services.storms.gate import Gate


@dataclass(frozen=True, slots=True)
class Introspected:
    """A live token of the client, and the grant under which it got it."""

    client: ClientId
    grant: str
    token: LiveToken


class Introspector:
    """Knows tokens by the anchor that they are bound to: its name is made of the client's UID and the grant."""

    def __init__(self, reviewer: Reviewer, gate: Gate) -> None:
        self._reviewer = reviewer
        self._gate = gate

    async def introspect(self, client: Client, token: Sensitive) -> Introspected | None:
        """Return what a token is, or None where it is not the client's, or not good any more.

        Raises BrokerError: overloaded, kubernetes_unavailable, kubernetes_timeout, broker_not_authorized.
        """
        async with self._gate.turn(client.id):
            live = await self._reviewer.inspect(token)
        if live is None:
            return None
        grant = next((grant for grant in client.grants if _is_of(client, grant, live)), None)
        return None if grant is None else Introspected(client.id, grant.name, live)


def _is_of(client: Client, grant: Grant, token: LiveToken) -> bool:
    if token.subject != account_user(client.id.namespace, grant.service_account):
        return False
    tops = (grant_anchor(client.uid, grant), vault_anchor(client.uid, grant))
    return any(is_below(token.anchor_name, top) for top in tops)
