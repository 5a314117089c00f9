"""The memory that is decided from: what a registry saw last, and whether that is young enough."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from broker.model.client import ClientId
from broker.ports import Registration
from broker.registration.freshness import Freshness


class SizeMetrics(Protocol):
    """What is told about the memory."""

    def registry_size(self, valid: int, invalid: int) -> None:
        """Count registrations by whether they are valid."""


_Version = tuple[str, str]


def _nobody_listens(_client_id: ClientId) -> None:
    """Serve where nothing has to follow the registry."""


class Memory:
    """What every :class:`broker.ports.LiveRegistry` has, whatever feeds it: registrations by id, and their age.

    ``on_change`` is called with the id of each that came, changed or went; it must not block. ``synced`` is for
    the one who feeds it to set.
    """

    def __init__(self, metrics: SizeMetrics, *, source: str, stale_seconds: float) -> None:
        self.on_change: Callable[[ClientId], None] = _nobody_listens
        self.synced = asyncio.Event()
        self._size = metrics
        self._freshness = Freshness("its registered clients", source, stale_seconds)
        self._known: dict[ClientId, Registration] = {}
        self._invalid: set[ClientId] = set()
        self._gone_over: dict[ClientId, set[_Version]] = {}
        """Versions that this process has written over, until the source tells of what it has made of them."""

    @property
    def age(self) -> float:
        """How many seconds ago the source was heard of; infinite where it never was."""
        return self._freshness.age

    @property
    def fresh(self) -> bool:
        """Tell whether the memory is young enough to decide from."""
        return self._freshness.fresh

    def heard(self) -> None:
        """Note that the memory is what the source says now."""
        self._freshness.heard()

    def get(self, client_id: ClientId) -> Registration | None:
        """Return a registration, or None. Raises BrokerError(registry_stale) when the memory is too old."""
        self._freshness.require()
        return self._known.get(client_id)

    def seen(self, client_id: ClientId) -> Registration | None:
        """Return what was known last, however old it is: to compare with, not to decide from."""
        return self._known.get(client_id)

    def replace_all(self, registrations: Iterable[Registration]) -> None:
        """Know these and no others, and tell of each difference once."""
        new = {registration.id: registration for registration in registrations}
        changed = [key for key in new.keys() | self._known.keys() if new.get(key) != self._known.get(key)]
        self._known = new
        self._gone_over.clear()
        self._invalid = {key for key, registration in new.items() if registration.client is None}
        self.heard()
        self._count()
        for key in changed:
            self.on_change(key)

    def put(self, registration: Registration) -> None:
        """Know a registration, and tell of it, unless that is known already, or this process has written over it."""
        known, version = self._known.get(registration.id), _version(registration)
        if version in self._gone_over.get(registration.id, ()):
            return
        self._gone_over.pop(registration.id, None)
        if known is None or not registration.resource_version or _version(known) != version:
            self._know(registration)

    def _know(self, registration: Registration) -> None:
        self._known[registration.id] = registration
        self._invalid.discard(registration.id)
        if registration.client is None:
            self._invalid.add(registration.id)
        self._count()
        self.on_change(registration.id)

    def written(self, seen: Registration, now: Registration) -> None:
        """Know what this process has made of a registration; see :meth:`broker.ports.LiveRegistry.written`.

        Where nothing was heard of the source for too long, who is told could not look at it: the source tells later.
        """
        known = self._known.get(seen.id)
        if self.fresh and known is not None and _version(known) == _version(seen):
            self._gone_over.setdefault(seen.id, set()).add(_version(seen))
            self._know(now)

    def drop(self, client_id: ClientId) -> None:
        """Forget a registration, and tell of it."""
        self._known.pop(client_id, None)
        self._gone_over.pop(client_id, None)
        self._invalid.discard(client_id)
        self._count()
        self.on_change(client_id)

    def keep_status(self, registration: Registration, status: Mapping[str, Any]) -> None:
        """Keep the status of a registration, unless it is another one by now. It is no change to tell of."""
        known = self._known.get(registration.id)
        if known is not None and (known.uid, known.generation) == (registration.uid, registration.generation):
            self._known[registration.id] = replace(known, status=status)

    def _count(self) -> None:
        self._size.registry_size(len(self._known) - len(self._invalid), len(self._invalid))


def _version(registration: Registration) -> _Version:
    """Return what no two states of a resource have in common; of one in a file, the version is empty."""
    return registration.uid, registration.resource_version
