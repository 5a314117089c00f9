"""What is true of each grant, whatever any broker knows: whether its tokens must end, and whether it can be served."""

from dataclasses import dataclass, field

from broker.model.client import Client, ClientId, Grant
from tests.model.kubernetes import Kubernetes, Resource

SIGHT = 115.0
"""For so long a broker may act on what was: 90 s without a word from the API server, the time that words are late, and
a visit that is under way."""


HEARD = 1300.0
"""For so long a broker may go by what the API server's clock was before it was set: until a visit, and one more."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A grant of the TokenClient with that UID, as far as its anchors go."""

    uid: str
    grant: str
    account: str


@dataclass(slots=True)
class Past:
    """What was true of a grant: when its tokens had to end last, since when they have to, and when it was harmed.

    ``blind`` is since when they have to for a reason that a registry tells; ``served`` since when it is in order.
    """

    client: ClientId
    over: float = float("-inf")
    since: float | None = None
    blind: float | None = None
    harmed: float = float("-inf")
    served: float | None = None


@dataclass(slots=True)
class Truth:
    """Looks at the cluster, and remembers what was."""

    kube: Kubernetes
    past: dict[Key, Past] = field(default_factory=dict)

    def look(self) -> None:
        """Take note of what is true now."""
        for it in self.kube.resources.values():
            for one in it.client.grants:
                self.past.setdefault(key_of(it.client, one), Past(it.client.id))
        now = self.kube.monotonic()
        for key, past in self.past.items():
            told = self.told_reasons(key, past.client)
            found = told + self.found_reasons(key)
            begun = self._begun(key, past.client)
            past.blind = None if not told else begun if past.blind is None else past.blind
            past.since = None if not found else begun if past.since is None else past.since
            past.over = now if found else past.over
            past.served = None if found or self._stuck(key, past.client) else past.served or now

    def _begun(self, key: Key, client_id: ClientId) -> float:
        """Return when a reason that is new began: now, or in the past where a registration ended by itself."""
        it, now = self.kube.resources.get(client_id), self.kube.monotonic()
        if it is None or it.client.uid != key.uid or it.client.not_after is None:
            return now
        if it.client.not_after > self.kube.now():
            return now
        begun = min(now, now - (self.kube.now() - it.client.not_after).total_seconds())
        return max(begun, self.kube.clock.set_at + HEARD)

    def told_reasons(self, key: Key, client_id: ClientId) -> list[str]:
        """Return why a grant's tokens must end, as far as a registry tells."""
        it = self.kube.resources.get(client_id)
        if it is None or it.client.uid != key.uid:
            return ["gone"]
        found = ["deleting"] if it.deleting else []
        found += ["suspended"] if it.client.suspended else []
        if not it.valid:
            return found
        found += ["expired"] if it.client.not_after is not None and it.client.not_after <= self.kube.now() else []
        found += ["removed"] if key not in keys_of(it.client) else []
        return [*found, "opted out"] if not self.kube.opted_in else found

    def found_reasons(self, key: Key) -> list[str]:
        """Return why a grant's tokens must end, as far as has to be found out."""
        found = ["strong"] if key.account in self.kube.strong else []
        return [*found, "reads secrets"] if key.account in self.kube.reading else found

    def _stuck(self, key: Key, client_id: ClientId) -> bool:
        it = self.kube.resources[client_id]
        grant = it.client.grant(key.grant)
        return grant is None or self.stuck(it, grant)

    def stuck(self, it: Resource, grant: Grant) -> bool:
        """Tell whether nothing can be had for a grant, though what it gave may live on."""
        return not it.valid or self.kube.forbidden or grant.service_account not in self.kube.accounts

    def in_order(self, it: Resource, grant: Grant) -> bool:
        """Tell whether a token of a grant can be had."""
        key = key_of(it.client, grant)
        return not (self.told_reasons(key, it.client.id) or self.found_reasons(key) or self.stuck(it, grant))

    def harm(self, key: Key, *, for_seconds: float = 0.0) -> None:
        """Take note that somebody else has ended tokens of a grant, or that a call that came late has, or will."""
        if key in self.past:
            past = self.past[key]
            past.harmed = max(past.harmed, self.kube.monotonic() + for_seconds)

    def innocent(self, key: Key, made_at: float) -> bool:
        """Tell whether there was no reason to end what hangs on an anchor that was made then."""
        past = self.past[key]
        return max(past.over, past.harmed) < made_at - SIGHT


def key_of(client: Client, grant: Grant) -> Key:
    """Return what names a grant's anchors."""
    return Key(client.uid, grant.name, grant.service_account)


def keys_of(client: Client) -> set[Key]:
    """Return those of all grants of a client."""
    return {key_of(client, one) for one in client.grants}
