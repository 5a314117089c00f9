"""The registered clients: a memory fed by a watch on TokenClients, and nothing else."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.kube.reflector import STALE_SECONDS, Reflector, Resource, WatchMetrics
from broker.kube.session import KubeSession
from broker.model.client import ClientId
from broker.ports import Registration
from broker.registration.manifest import read_registration

PATH = "/apis/tokenbroker.dev/v1alpha1/tokenclients"


class RegistryMetrics(WatchMetrics, Protocol):
    """What the registry tells about itself."""

    def registry_size(self, valid: int, invalid: int) -> None:
        """Count registrations by whether they are valid."""


def _nobody_listens(_client_id: ClientId) -> None:
    """Serve where nothing has to follow the registry."""


class WatchedRegistry:
    """All TokenClients of the cluster; implements :class:`broker.ports.LiveRegistry`.

    ``on_change`` is set before :meth:`run` and called with the id of each registration that came, changed or
    went; it must not block.
    """

    def __init__(self, session: KubeSession, metrics: RegistryMetrics) -> None:
        self.on_change: Callable[[ClientId], None] = _nobody_listens
        self._metrics = metrics
        self._known: dict[ClientId, Registration] = {}
        self._invalid: set[ClientId] = set()
        self._reflector = Reflector(session, "TokenClients", PATH, self, metrics)

    @property
    def synced(self) -> asyncio.Event:
        """Set once it is known who is registered."""
        return self._reflector.synced

    @property
    def fresh(self) -> bool:
        """Tell whether the memory is young enough to decide from."""
        return self._reflector.fresh

    def get(self, client_id: ClientId) -> Registration | None:
        """Return a registration, or None. Raises BrokerError(registry_stale) when the memory is too old."""
        if not self.fresh:
            raise BrokerError(
                Reason.REGISTRY_STALE,
                "The broker has lost sight of its registered clients; try again shortly.",
                operator_detail=f"No word from the watch on TokenClients for {STALE_SECONDS:g} s.",
                retry_after=5,
            )
        return self._known.get(client_id)

    async def run(self) -> None:
        """Follow the TokenClients until cancelled."""
        await self._reflector.run()

    def listed(self, resources: list[Resource]) -> None:
        """Know these and no others, and tell of each difference."""
        new = {registration.id: registration for registration in map(read_registration, resources)}
        changed = [key for key in new.keys() | self._known.keys() if new.get(key) != self._known.get(key)]
        self._known = new
        self._invalid = {key for key, registration in new.items() if registration.client is None}
        for key in changed:
            self.on_change(key)
        self._count()

    def put(self, resource: Resource) -> None:
        """Know one that came or changed."""
        registration = read_registration(resource)
        self._known[registration.id] = registration
        self._invalid.discard(registration.id)
        if registration.client is None:
            self._invalid.add(registration.id)
        self.on_change(registration.id)
        self._count()

    def gone(self, resource: Resource) -> None:
        """Forget one that went."""
        client_id = ClientId(resource["metadata"]["namespace"], resource["metadata"]["name"])
        self._known.pop(client_id, None)
        self._invalid.discard(client_id)
        self.on_change(client_id)
        self._count()

    def _count(self) -> None:
        self._metrics.registry_size(len(self._known) - len(self._invalid), len(self._invalid))
