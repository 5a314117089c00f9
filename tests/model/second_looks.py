"""What a replica must not ask for though it knows better: what it decided before it waited, it looks at again."""

from collections.abc import Callable, Iterable
from typing import Protocol

from broker.model.anchor import AnchorId, AnchorKind, grant_anchor, is_below, vault_anchor
from broker.model.client import Client, ClientId
from broker.model.token import Anchor, TokenSpec
from broker.ports import Clock
from tests.model.kubernetes import Kubernetes


class Knowing(Protocol):
    """What a replica knows at the moment."""

    @property
    def time(self) -> Clock:
        """Return the time that it takes for the API server's."""

    def served(self, client_id: ClientId, clock: Clock | None = None) -> Client | None:
        """Return a client as it is registered, if it may have tokens by a clock, by default its machine's."""

    def all_served(self) -> Iterable[Client]:
        """Return all of them."""


class SecondLooks:
    """Compares calls with what the caller knows in the moment of the call, and tells ``wrong`` of each that differs."""

    def __init__(self, who: str, knows: Knowing, kube: Kubernetes, wrong: Callable[[str], None]) -> None:
        self._who = who
        self._knows = knows
        self._kube = kube
        self._wrong = wrong
        self._above: Anchor | None = None

    def found(self, which: AnchorId, anchor: Anchor | None) -> None:
        """Hear what was found of an anchor: where it is the one above versions in Vault, a version's comes next."""
        if which.kind is AnchorKind.VAULT:
            self._above = anchor

    def makes(self, client: Client, which: AnchorId, parent: Anchor | None) -> None:
        """Look at an anchor that is asked for now."""
        if which.kind is not AnchorKind.VERSION or parent != self._above:
            return
        self._above = None
        now = self._knows.served(client.id, self._knows.time)
        same = set(client.grants).intersection(now.grants) if now is not None and now.uid == client.uid else set()
        if not any(is_below(which.name, vault_anchor(client.uid, grant)) for grant in same):
            self._wrong(f"{self._who} makes an anchor for a version of {client.id}, and knows that it changed")

    def mints(self, spec: TokenSpec) -> None:
        """Look at a token that is asked for now: those that share a grant's anchor are asked for at once."""
        secret = self._kube.secrets.get(spec.anchor.name) if spec.anchor is not None else None
        if secret is None or secret.kind is not AnchorKind.GRANT:
            return
        names = {grant_anchor(one.uid, grant).name for one in self._knows.all_served() for grant in one.grants}
        if secret.name not in names:
            self._wrong(f"{self._who} mints for {spec.service_account}, and knows that it must not")
