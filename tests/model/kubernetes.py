"""A model of the API server: TokenClients, anchors with owners, accounts, tokens, and a garbage collector."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from broker.errors import BrokerError, Fault, Reason
from broker.kube.finalizers import FINALIZER
from broker.model.anchor import AnchorId, AnchorKind
from broker.model.client import Client, ClientId
from broker.model.sensitive import Sensitive
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.ports import Registration
from tests.model.clocks import MachineClock
from tests.support.election import FakeLease

NAMESPACE = "shop"
TRIED_FOR = 60.0
"""How long a visit may take in which a TokenClient is let go."""

COLLECTED_AFTER = 0.5
"""After how many seconds the garbage collector deletes what hung on something that went."""


@dataclass(slots=True)
class Resource:
    """A TokenClient. ``valid`` is False where its specification cannot be read."""

    client: Client
    valid: bool = True
    status: Mapping[str, Any] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deleting: bool = False
    version: int = 0

    def registration(self) -> Registration:
        """Return what a registry reads."""
        return Registration(
            self.client.id,
            self.client.uid,
            self.client.generation,
            self.client if self.valid else None,
            None if self.valid else Fault(Reason.INVALID_REQUEST, "spec: no"),
            self.status,
            self.deleting,
            self.finalizers,
            str(self.version),
            self.client.suspended,
        )


@dataclass(slots=True)
class Secret:
    """An anchor. ``late``: it was made by a call that had been given up; ``maker`` is the process that asked."""

    name: str
    uid: str
    owner: str
    kind: AnchorKind
    made_at: float
    maker: str
    late: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was minted."""

    value: str
    anchor_uid: str
    account: str
    account_uid: str
    expires_at: datetime


class Kubernetes:
    """What is there. Whoever watches is told of each change by ``watchers``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock = MachineClock(loop)
        self.resources: dict[ClientId, Resource] = {}
        self.secrets: dict[str, Secret] = {}
        self.accounts: dict[str, str] = {}
        self.tokens: dict[str, Token] = {}
        self.strong: set[str] = set()
        self.reading: set[str] = set()
        """Accounts that may read Secrets, which every grant's owner says that they must not."""
        self.opted_in = True
        self.forbidden = False
        self.forbidden_at = float("-inf")
        self.orphaned: set[str] = set()
        self.nobodys: set[str] = set()
        """UIDs of TokenClients whose anchors were orphaned, and of those of them that were let go without rights."""
        self.lease = FakeLease()
        self.told_to_lead: dict[str, bool] = {}
        """By process what people were told last, by an Event on the Lease."""
        self.watchers: list[Callable[[ClientId, Registration | None], None]] = []
        self.labels_watchers: list[Callable[[], None]] = []
        self.parents: dict[str, str] = {}
        """By the UID of an anchor that is or was there, that of its owner."""
        self.kinds: dict[str, tuple[str, float]] = {}
        """By the UID of an anchor that is or was there, its name and when it was made."""
        self._numbers = itertools.count(1)

    def now(self) -> datetime:
        """Return the date and time, by the API server's clock."""
        return self.clock.now()

    def monotonic(self) -> float:
        """Return the seconds since the beginning."""
        return self.loop.time()

    def uid(self) -> str:
        """Return a new UID, which differs from others in its first part."""
        return f"{next(self._numbers):08}"

    # What users do.

    def apply(self, client: Client, *, valid: bool = True) -> None:
        """Make a TokenClient, or change its specification."""
        it = self.resources.setdefault(client.id, Resource(client))
        it.client, it.valid = client, valid
        self.changed(client.id)

    def delete_client(self, client_id: ClientId, *, orphan: bool) -> None:
        """Delete a TokenClient; ``orphan``: what it owns is left alone."""
        it = self.resources[client_id]
        it.deleting = True
        if orphan:
            self.orphaned.add(it.client.uid)
            for secret in self.secrets.values():
                if secret.owner == it.client.uid:
                    secret.owner = ""
        self.changed(client_id)

    def changed(self, client_id: ClientId) -> None:
        """Take note that a TokenClient has changed, let it go where nothing holds it, and tell of it."""
        it = self.resources[client_id]
        it.version = next(self._numbers)
        if it.deleting and not it.finalizers:
            del self.resources[client_id]
            if it.client.uid in self.orphaned and self.lately_forbidden:
                self.nobodys.add(it.client.uid)
            self.collect_soon()
        registration = it.registration() if client_id in self.resources else None
        for tell in self.watchers:
            tell(client_id, registration)

    def permit(self, *, forbidden: bool) -> None:
        """Take the broker's rights in the namespace away, or give them back."""
        self.forbidden_at = self.monotonic() if self.forbidden else self.forbidden_at
        self.forbidden = forbidden

    @property
    def lately_forbidden(self) -> bool:
        """Tell whether a visit that is over now may have found that the broker has no rights."""
        return self.forbidden or self.monotonic() - self.forbidden_at < TRIED_FOR

    def opt(self, *, into: bool) -> None:
        """Label the namespace, or take the label off."""
        self.opted_in = into
        for tell in self.labels_watchers:
            tell()

    # What the broker asks for: each is one call.

    def snapshot(self) -> list[Registration]:
        """Return all TokenClients."""
        return [it.registration() for it in self.resources.values()]

    def labels(self) -> list[dict[str, Any]]:
        """Return all Namespaces."""
        labels = {"tokenbroker.dev/clients": "enabled"} if self.opted_in else {}
        return [{"metadata": {"name": NAMESPACE, "labels": labels}}]

    def ensure(self, which: AnchorId, owner: str, maker: str, *, late: bool) -> Anchor:
        """Make a Secret, or return the one of that name."""
        self._require_rights()
        found = self.secrets.get(which.name)
        if found is None:
            uid = self.uid()
            found = Secret(which.name, uid, owner, which.kind, self.monotonic(), maker, late)
            self.secrets[which.name] = found
            self.parents[uid], self.kinds[uid] = owner, (which.name, found.made_at)
            self.collect_soon()
        return Anchor(found.name, found.uid)

    def find(self, which: AnchorId) -> Anchor | None:
        """Return a Secret's name and UID."""
        self._require_rights()
        found = self.secrets.get(which.name)
        return None if found is None else Anchor(found.name, found.uid)

    def delete_secret(self, name: str, uid: str | None) -> bool:
        """Delete a Secret, as the broker may."""
        self._require_rights()
        return self.remove_secret(name, uid)

    def remove_secret(self, name: str, uid: str | None = None) -> bool:
        """Delete a Secret, as anybody may who has the right."""
        found = self.secrets.get(name)
        if found is None or uid not in {None, found.uid}:
            return False
        del self.secrets[name]
        self.collect_soon()
        return True

    def write_status(self, seen: Registration, status: Mapping[str, Any]) -> Registration | None:
        """Replace a status, if the resource is as it was seen, and return it."""
        it = self._as_seen(seen)
        if it is None or str(it.version) != seen.resource_version:
            return None
        it.status = dict(status)
        self.changed(seen.id)
        return it.registration()

    def put_finalizer(self, seen: Registration) -> Registration:
        """Put the broker's finalizer on; not where it is being deleted."""
        return self._finalize(seen, (*seen.finalizers, FINALIZER))

    def release(self, seen: Registration) -> Registration:
        """Take it off."""
        return self._finalize(seen, tuple(one for one in seen.finalizers if one != FINALIZER))

    def _finalize(self, seen: Registration, finalizers: tuple[str, ...]) -> Registration:
        it = self.resources.get(seen.id)
        if it is None:
            return seen
        if it.client.uid != seen.uid or str(it.version) != seen.resource_version:
            raise _conflict()
        if it.deleting and set(finalizers) - set(it.finalizers):
            raise BrokerError(Reason.KUBERNETES_UNAVAILABLE, "422: no new finalizers on what is being deleted")
        it.finalizers = finalizers
        registration = it.registration()
        self.changed(seen.id)
        still = self.resources.get(seen.id)
        return still.registration() if still is not None else registration

    def _as_seen(self, seen: Registration) -> Resource | None:
        it = self.resources.get(seen.id)
        return it if it is not None and it.client.uid == seen.uid else None

    def mint(self, spec: TokenSpec) -> MintedToken:
        """Make a token."""
        self._require_rights()
        account_uid = self.accounts.get(spec.service_account)
        if account_uid is None:
            raise BrokerError(Reason.SERVICE_ACCOUNT_MISSING, "no such account")
        anchor = self.secrets.get(spec.anchor.name) if spec.anchor is not None else None
        right_account = spec.account_uid in {"", account_uid}
        if anchor is None or spec.anchor is None or anchor.uid != spec.anchor.uid or not right_account:
            raise BrokerError(Reason.ANCHOR_MISSING, "409")
        now = self.now().replace(microsecond=0)
        value, expires = f"token-{next(self._numbers)}", now + timedelta(seconds=spec.ttl_seconds)
        self.tokens[value] = Token(value, anchor.uid, spec.service_account, account_uid, expires)
        return MintedToken(Sensitive(value), f"jti-{value}", now, expires, f"sha-{value}", account_uid)

    def accepts(self, value: str) -> bool:
        """Tell whether a token works."""
        it = self.tokens[value]
        there = any(secret.uid == it.anchor_uid for secret in self.secrets.values())
        return there and self.accounts.get(it.account) == it.account_uid and self.now() < it.expires_at

    def top(self, uid: str) -> str:
        """Return the UID of the anchor at the top of a chain."""
        while self.parents.get(uid) in self.kinds:
            uid = self.parents[uid]
        return uid

    def held_by(self, client_uid: str) -> list[str]:
        """Return the tokens of a TokenClient that work and go on to, but those that a call has made too late to end."""
        there = {it.uid: it for it in self.secrets.values()}
        found = []
        for value, token in self.tokens.items():
            chain = [token.anchor_uid]
            while self.parents.get(chain[-1]) in self.kinds:
                chain.append(self.parents[chain[-1]])
            hangs = self.parents.get(chain[-1]) == client_uid and all(uid in there for uid in chain)
            if hangs and self.accepts(value) and not any(there[uid].late for uid in chain):
                found.append(value)
        return found

    def collect_soon(self) -> None:
        """Let the garbage collector come by."""
        self.loop.call_later(COLLECTED_AFTER, self._collect)

    def _collect(self) -> None:
        there = {it.client.uid for it in self.resources.values()} | {it.uid for it in self.secrets.values()} | {""}
        gone = [name for name, it in self.secrets.items() if it.owner not in there]
        for name in gone:
            self.remove_secret(name)

    def _require_rights(self) -> None:
        if self.forbidden:
            raise BrokerError(Reason.BROKER_NOT_AUTHORIZED, "no Role")


def _conflict() -> BrokerError:
    return BrokerError(Reason.KUBERNETES_UNAVAILABLE, "409: it has changed")
