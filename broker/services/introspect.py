"""Whether a token that a client holds is one of its own, and still good."""

from collections.abc import Callable
from dataclasses import dataclass

from broker.model.client import Client, ClientId, Grant
from broker.model.sensitive import Sensitive
from broker.model.vault_path import version_purpose
from broker.ports import AnchorNames, LiveToken, Reviewer

RECENT_VERSIONS = 64
"""How many versions in Vault before the current one are known again; older ones have long expired."""


@dataclass(frozen=True, slots=True)
class Introspected:
    """A live token of the client, and the grant under which it got it."""

    client: ClientId
    grant: str
    token: LiveToken


class Introspector:
    """Knows tokens by the anchor that they are bound to: its name is made of the client's UID and the grant."""

    def __init__(
        self, reviewer: Reviewer, anchors: AnchorNames, vault_version: Callable[[ClientId, str], int | None]
    ) -> None:
        self._reviewer = reviewer
        self._anchors = anchors
        self._vault_version = vault_version

    async def introspect(self, client: Client, token: Sensitive) -> Introspected | None:
        """Return what a token is, or None where it is not the client's, or not good any more.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout, broker_not_authorized.
        """
        live = await self._reviewer.inspect(token)
        if live is None:
            return None
        grant = next((grant for grant in client.grants if self._is_of(client, grant, live)), None)
        return None if grant is None else Introspected(client.id, grant.name, live)

    def _is_of(self, client: Client, grant: Grant, token: LiveToken) -> bool:
        if token.subject != f"system:serviceaccount:{client.id.namespace}:{grant.service_account}":
            return False
        purposes = [grant.name]
        version = self._vault_version(client.id, grant.name)
        if version is not None:
            # The next one may be in Vault already, and not be known yet.
            recent = range(max(1, version - RECENT_VERSIONS), version + 2)
            purposes += [version_purpose(grant.name, one) for one in recent]
        return token.anchor_name in {self._anchors.name_of(client, purpose) for purpose in purposes}
