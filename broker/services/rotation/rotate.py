"""Keep a current token in Vault for every grant that wants one, and none for those that do not.

A suspended or expired client gets no new version. What is in Vault stays there and is worth nothing: the reconciler
deletes the anchor above those of all versions. When that anchor has to be made again, the copy is replaced.
"""

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from weakref import WeakValueDictionary

from broker.errors import BrokerError, Reason
from broker.model.account import account_user
from broker.model.audit_record import Origin
from broker.model.client import Client, ClientId
from broker.model.decision import standing
from broker.model.schedule import spread
from broker.model.stored_copy import StoredCopy
from broker.model.vault_path import CopyKey, VaultPlace
from broker.ports import Clock, Leader, Registry, VaultStore
from broker.services.bit_by_bit import bit_by_bit
from broker.services.courtesy import at_once
from broker.services.rotation.copy import Target, left_over, owned, renewal
from broker.services.rotation.current import CurrentCopies
from broker.services.rotation.outage import Outage
from broker.services.rotation.removal import Removal
from broker.services.rotation.shown import ShownCopies
from broker.services.rotation.wanted import Wanted
from broker.services.rotation.write import CopyWriter
from broker.services.workqueue import WorkQueue

CHECK_SECONDS = 600.0
"""A copy is looked at after one to two times this long, in case somebody deleted or overwrote it."""

SHORTEST_WAIT_SECONDS = 30.0
"""No copy is visited more often, even where the clocks of broker and API server disagree by more than a TTL."""

WORKERS = 16
"""How many copies are looked at at a time; what they ask for takes turns (:mod:`broker.services.courtesy`)."""


_News = tuple[str, int, datetime | None]
"""What about a client may change what should be in Vault: UID, generation, when a new version was asked for."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A version that was written for a caller. ``path`` is as ``vault kv get`` takes it."""

    path: str
    version: int
    grant: str
    subject: str
    audience: str
    issued_at: datetime
    expires_at: datetime
    requested_seconds: int
    granted_seconds: int


class Rotator:
    """Visits copies while it leads; a visit and a delivery of the same copy wait for each other."""

    def __init__(
        self,
        *,
        registry: Registry,
        wanted: Wanted,
        store: VaultStore,
        writer: CopyWriter,
        current: CurrentCopies,
        shown: ShownCopies,
        outage: Outage,
        leader: Leader,
        place: VaultPlace,
        clock: Clock,
        workers: int = WORKERS,
    ) -> None:
        self._registry = registry
        self._wanted = wanted
        self._store = store
        self._writer = writer
        self._current = current
        self._shown = shown
        self._outage = outage
        self._leader = leader
        self._place = place
        self._clock = clock
        self._removal = Removal(store=store, writer=writer, place=place, leader=leader)
        self._seen: dict[ClientId, tuple[_News, frozenset[CopyKey]]] = {}
        self._locks: WeakValueDictionary[CopyKey, asyncio.Lock] = WeakValueDictionary()
        self.queue: WorkQueue[CopyKey] = WorkQueue("rotate", self.visit, workers=workers)

    def changed(self, client_id: ClientId) -> None:
        """Take note that a registration came, changed or went; a change of its status alone is nothing new."""
        registration = self._registry.get(client_id)
        news, before = self._seen.get(client_id, (None, frozenset[CopyKey]()))
        if registration is None:
            self._seen.pop(client_id, None)
            self._add(before)
        elif registration.client is not None and news != _news(registration.client):
            client = registration.client
            wanted = frozenset(CopyKey(client.id, grant.name) for grant in client.grants if grant.vault)
            self._seen[client_id] = (_news(client), wanted)
            for key in before | wanted:
                self.queue.add(key) if news is None else self.queue.news(key)

    def lead(self) -> None:
        """Visit every copy: this replica leads from now on, and another one may have written meanwhile."""
        self._current.stand_back()
        self._add(key for _, keys in self._seen.values() for key in keys)

    def stand_back(self) -> None:
        """Take note that this replica leads no more."""
        self._shown.stand_back()
        self._current.stand_back()

    def revisit(self, namespaces: Collection[str]) -> None:
        """Visit the copies of some namespaces, which may have been lost."""
        self._add(key for _, keys in self._seen.values() for key in keys if key.client.namespace in namespaces)

    def reached_again(self) -> None:
        """Visit the copies that were not looked at while Vault was away."""
        self._add(self._outage.over())

    def prepared(self, client_id: ClientId, grant: str) -> None:
        """Visit the copy of a grant that may be issued for from now on."""
        key = CopyKey(client_id, grant)
        if key in self._seen.get(client_id, (None, frozenset[CopyKey]()))[1]:
            self.queue.news(key)

    async def visit(self, key: CopyKey) -> float | None:
        """Bring one copy up to date, or remove it; the queue's handler."""
        async with self._lock(key):
            if not self._leader.leading:
                return self._following(key)
            away = self._outage.away
            if away is not None:
                self._put_off(key, away)
                return None
            try:
                return await self._look(key)
            except BrokerError as error:
                self._outage.met(key, error)
                raise

    def _following(self, key: CopyKey) -> float | None:
        """Return when to see whether this replica leads; a copy that nobody wants is forgotten, for a sweep to find."""
        with suppress(BrokerError):  # it is not known who is registered
            if self._wanted.nowhere(key):
                return None
        return CHECK_SECONDS

    async def _look(self, key: CopyKey) -> float | None:
        if not self._wanted.nowhere(key):
            target = self._wanted.target(key)
            return None if target is None else await self._keep(target)
        with at_once():
            await self._remove(key)
        return None

    def _put_off(self, key: CopyKey, away: BrokerError) -> None:
        """Leave a copy alone until Vault is back."""
        self._outage.missed(key)
        target = self._wanted.target(key)
        if target is not None:
            self._shown.failed(target, away)

    async def deliver(self, client: Client, grant: str, origin: Origin) -> Delivered:
        """Write a fresh version now, due or not, for an authenticated client that may have it.

        Raises BrokerError: delivery_not_configured, and those of :meth:`CopyWriter.write`.
        """
        key = CopyKey(client.id, grant)
        async with self._lock(key):
            with at_once():
                return await self._deliver(key, client, origin)

    async def _deliver(self, key: CopyKey, client: Client, origin: Origin) -> Delivered:
        target = self._wanted.target(key)
        if target is None or target.client.uid != client.uid:
            raise BrokerError(Reason.DELIVERY_NOT_CONFIGURED, "This grant is not kept in Vault.")
        try:
            copy = await self._current.replace(target, await self._own(target), origin)
        except BrokerError as error:
            self._shown.failed(target, error)
            self._outage.met(key, error)
            self.queue.add(key)  # so that what is shown does not stay wrong for longer than the failure
            raise
        self.queue.add(key, self._wait(target, copy, active=True))
        return _delivered(copy, target, self._place)

    async def _keep(self, target: Target) -> float:
        active = standing(target.client, self._clock.now()) is None
        if active and not self._current.looked_at(target):
            return CHECK_SECONDS  # or when it was
        try:
            copy = await self._own(target)
            if active:
                copy = await self._current.keep(target, copy)
            if copy is None:
                return self._wait(target, None, active=active)
            copy = await self._writer.tidy(copy)
        except BrokerError as error:
            self._shown.failed(target, error)
            raise
        self._shown.show(target, copy)
        return self._wait(target, copy, active=active)

    async def _own(self, target: Target) -> StoredCopy | None:
        """Return the target's own copy, or None where its path is free. Raises BrokerError(vault_path_taken)."""
        led = self._leader.leading
        copy = await self._store.inspect(self._place.path(target.key))
        if copy is None or owned(copy, target):
            return copy
        if not left_over(copy, target.key, self._place.server, self._clock.now()):
            raise self._taken(target)
        # A TokenClient of this name was deleted and made again: the path is its predecessor's.
        await self._removal.clear(copy, led=led)
        return None

    async def _remove(self, key: CopyKey) -> None:
        copy = await self._store.inspect(self._place.path(key))
        if copy is not None and left_over(copy, key, self._place.server, self._clock.now()):
            await self._removal.clear(copy, led=True)
        self._current.forget(key)
        self._shown.removed(key, registered=self._registry.get(key.client) is not None)

    def _wait(self, target: Target, copy: StoredCopy | None, *, active: bool) -> float:
        """Return the seconds until something is to be done, at most until the next look."""
        now = self._clock.now()
        times = []
        if copy is not None and copy.label is not None:
            times = [one.until for one in copy.label.retired]
            times += [renewal(copy.label, target)] if active else []
        waits = [CHECK_SECONDS * (1 + spread(str(target.key))), *((time - now).total_seconds() for time in times)]
        wait, asked = max(SHORTEST_WAIT_SECONDS, min(waits)), target.client.rotate_requested
        return min(wait, (asked - now).total_seconds()) if asked is not None and asked > now else wait

    def _taken(self, target: Target) -> BrokerError:
        path = self._place.text(target.key)
        return BrokerError(
            Reason.VAULT_PATH_TAKEN,
            "Something else lives at this grant's path in Vault; it is left alone.",
            operator_detail=(
                f"{path} in Vault is not this TokenClient's and is left alone: remove it (vault kv metadata delete "
                f"{path}). Where another cluster writes there, give each its own cluster.name."
            ),
        )

    def _add(self, keys: Iterable[CopyKey]) -> None:
        bit_by_bit(self.queue.add, keys)

    def _lock(self, key: CopyKey) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


def _news(client: Client) -> _News:
    return client.uid, client.generation, client.rotate_requested


def _delivered(copy: StoredCopy, target: Target, place: VaultPlace) -> Delivered:
    label = copy.label
    if label is None:
        raise RuntimeError("a version was written without a label")
    return Delivered(
        path=place.text(target.key),
        version=copy.current_version,
        grant=target.grant.name,
        subject=account_user(target.client.id.namespace, target.grant.service_account),
        audience=target.audience,
        issued_at=label.issued_at,
        expires_at=label.expires_at,
        requested_seconds=target.copy.ttl_seconds,
        granted_seconds=round((label.expires_at - label.issued_at).total_seconds()),
    )
