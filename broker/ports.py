"""What the services need of the world, each as small as it can be; the adapters implement them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from broker.errors import Fault
from broker.model.anchor import AnchorId
from broker.model.audit_record import Issuance, RefusedRequest, Revoked
from broker.model.client import Client, ClientId
from broker.model.lease import LeaseRecord, Term
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import CopyLabel, StoredCopy
from broker.model.token import Anchor, MintedToken, TokenSpec


class Clock(Protocol):
    """The time, passed in so that tests can own it."""

    def now(self) -> datetime:
        """Return the date and time, UTC."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow, for durations."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One TokenClient as it was last seen: the client, or the fault that makes it none.

    ``status`` is what the resource carries now; it serves to avoid writing the same again, and to know which grants
    are gone whose tokens have to be ended, never as input to a decision. ``deleting``: it waits for its finalizers.
    ``resource_version`` is empty where there is no resource to put a finalizer on. ``suspended`` counts also where
    the rest is not valid.
    """

    id: ClientId
    uid: str
    generation: int
    client: Client | None
    fault: Fault | None
    status: Mapping[str, Any]
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    resource_version: str = ""
    suspended: bool = False


class Registry(Protocol):
    """The registered clients, from memory."""

    def get(self, client_id: ClientId) -> Registration | None:
        """Return a registration, or None. Raises BrokerError(registry_stale) when the memory is too old."""


class LiveRegistry(Registry, Protocol):
    """A registry that follows its source by itself.

    ``on_change`` is set before :meth:`run` and called with the id of each registration that came, changed or
    went; it must not block.
    """

    on_change: Callable[[ClientId], None]

    @property
    def synced(self) -> asyncio.Event:
        """Set once it is known who is registered."""

    @property
    def age(self) -> float:
        """How many seconds ago the source was heard of; infinite where it never was."""

    @property
    def fresh(self) -> bool:
        """Tell whether the memory is young enough to decide from."""

    @property
    def trouble(self) -> str:
        """Why the source is not heard of, in an operator's words; empty where it is."""

    def written(self, seen: Registration, now: Registration) -> None:
        """Know what this process has made of a registration, unless more is known; the source tells of it later."""

    async def run(self) -> None:
        """Follow the source until cancelled."""


class Minter(Protocol):
    """Makes tokens."""

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Return a token, checked to be what was asked for.

        Raises BrokerError: service_account_missing, broker_not_authorized, anchor_missing,
        kubernetes_unavailable, kubernetes_timeout, kubernetes_rejected.
        """

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Try out :meth:`mint`: a token that lives for ten minutes and is not handed out; raises what it would."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Whose an authentic ServiceAccount token is, and for whom."""

    username: str
    uid: str
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LiveToken:
    """What an authentic token for one audience says. Times are in seconds since 1970.

    ``anchor_name`` is the Secret that it is bound to; empty where it is bound to none.
    """

    issuer: str
    subject: str
    audience: str
    issued_at: int
    expires_at: int
    jti: str
    anchor_name: str


class Reviewer(Protocol):
    """Asks the API server about ServiceAccount tokens."""

    async def inspect(self, token: Sensitive) -> LiveToken | None:
        """Return what a token says, or None where the API server does not accept it.

        Raises BrokerError like :meth:`review`.
        """

    async def review(self, token: str, audience: str) -> Reviewed | None:
        """Return whose token it is, or None where it is not accepted for the audience, or not any more.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout, broker_not_authorized.
        """


class ProofReviewer(Protocol):
    """Asks the API server about ServiceAccount tokens that are proofs."""

    async def review(self, token: str, audience: str, namespace: str) -> Reviewed | None:
        """Return what :meth:`Reviewer.review` does. ``namespace`` is the account's, as the signed token says."""


class Anchors(Protocol):
    """Makes and deletes the Secrets that tokens are bound to (:mod:`broker.model.anchor`).

    All raise BrokerError: broker_not_authorized, kubernetes_unavailable, kubernetes_timeout.
    """

    async def ensure(self, client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        """Return an anchor of a client, made if need be below ``parent``, or the TokenClient itself."""

    async def find(self, client: Client, which: AnchorId) -> Anchor | None:
        """Return an anchor that is there, or None; nothing is made."""

    async def delete(self, namespace: str, name: str, uid: str | None = None) -> bool:
        """Delete an anchor, and only the one with that UID where one is given; tell whether it was there.

        Tokens bound to it, and to those below it, die within seconds.
        """


class AuditLog(Protocol):
    """The record of what was handed out."""

    def issued(self, record: Issuance) -> None:
        """Write the record now. Raises BrokerError(audit_unavailable): then nothing may be handed out."""

    def refused(self, record: RefusedRequest) -> None:
        """Write the record if that is possible; a refusal stays one either way."""

    def revoked(self, record: Revoked) -> None:
        """Write the record if that is possible; what was revoked stays so either way."""


class VaultStore(Protocol):
    """Tokens in Vault's KV version 2. Paths are tuples of raw segments: the adapter encodes them.

    All raise BrokerError: vault_unavailable, vault_denied.
    """

    async def inspect(self, path: tuple[str, ...]) -> StoredCopy | None:
        """Return what the metadata says, or None where nothing is there."""

    async def write(self, path: tuple[str, ...], data: Mapping[str, Sensitive | str], cas: int) -> int:
        """Write a new version on top of version ``cas`` (0: none yet) and return its number.

        Raises BrokerError(vault_write_conflict) when another version is current.
        """

    async def label(self, path: tuple[str, ...], label: CopyLabel) -> None:
        """Describe the version that was written."""

    async def remove(self, path: tuple[str, ...]) -> None:
        """Delete all versions and the metadata; nothing there is no error."""

    async def children(self, path: tuple[str, ...]) -> list[str]:
        """Return the names below a path, folders ending in a slash; empty where there are none."""

    async def reach_active(self) -> None:
        """Make a call that only the server answers which takes writes: a standby may answer the others by itself."""


class StatusWriter(Protocol):
    """Writes what operators see on the resource."""

    async def write(self, registration: Registration, status: Mapping[str, Any]) -> bool:
        """Replace the status of a resource that is as it was seen; tell whether it was, and is there at all.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout.
        """


class Finalizers(Protocol):
    """Puts the broker's finalizer on TokenClients: one that is deleted waits until its tokens have ended."""

    async def put(self, registration: Registration) -> Registration:
        """See to it that the finalizer is there, and return what is registered then.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout.
        """

    async def release(self, registration: Registration) -> None:
        """Take the finalizer off. Raises BrokerError like :meth:`put`."""


class EventRecorder(Protocol):
    """Kubernetes Events on TokenClients."""

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """Record an event with a fixed text; failing to is counted and logged, never raised."""


class Leader(Protocol):
    """Tells whether this process is the one that does what must not be done twice."""

    @property
    def leading(self) -> bool:
        """Tell it now; it can change at any moment, so ask each time."""


class LeadRecorder(Protocol):
    """Records for people who leads."""

    async def record(self, *, leading: bool) -> None:
        """Record that this process leads, or leads no more. Raises BrokerError where that has to be tried again."""


class LeaseStore(Protocol):
    """The record by which one of several is chosen.

    Both raise BrokerError: broker_not_authorized, kubernetes_unavailable (also for a record that cannot be read),
    kubernetes_timeout. A write that raised may have been carried out, or may be later.
    """

    async def read(self) -> LeaseRecord | None:
        """Return the newest record, never an older one than was seen before, or None where there is none."""

    async def write(self, term: Term, over: LeaseRecord | None) -> LeaseRecord | None:
        """Write over exactly this record, or where there is none, and return the new one.

        Returns None where it is not there as it was (any more): somebody else wrote.
        """
