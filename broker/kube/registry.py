"""The registered clients: a memory fed by a watch on TokenClients, and nothing else."""

from collections.abc import Callable
from typing import Protocol

from broker.kube import reflector
from broker.kube.reflector import Reflector, WatchMetrics
from broker.kube.session import KubeSession
from broker.model.client import API_VERSION, ClientId
from broker.ports import Registration
from broker.registration.manifest import read_registration
from broker.registration.memory import Memory, SizeMetrics

PATH = f"/apis/{API_VERSION}/tokenclients"


Written = Callable[[Registration, Registration], None]
"""Is told of what was seen of a TokenClient, and what a call has made of it."""


def resource_path(client_id: ClientId) -> str:
    """Return where one TokenClient is."""
    return f"/apis/{API_VERSION}/namespaces/{client_id.namespace}/tokenclients/{client_id.name}"


class RegistryMetrics(SizeMetrics, WatchMetrics, Protocol):
    """What the registry tells about itself."""


class WatchedRegistry(Memory):
    """All TokenClients of the cluster; implements :class:`broker.ports.LiveRegistry`."""

    def __init__(self, session: KubeSession, metrics: RegistryMetrics) -> None:
        super().__init__(metrics, source="the watch on TokenClients", stale_seconds=reflector.STALE_SECONDS)
        self._reflector = Reflector(session, "TokenClients", PATH, _Reader(self), metrics, essence=read_registration)

    @property
    def trouble(self) -> str:
        """See :attr:`broker.ports.LiveRegistry.trouble`."""
        return self._reflector.trouble

    async def run(self) -> None:
        """Follow the TokenClients until cancelled."""
        await self._reflector.run()


class _Reader:
    """Reads resources into a memory; implements :class:`broker.kube.reflector.Follower`."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def heard(self) -> None:
        self._memory.heard()

    def listed(self, registrations: list[Registration]) -> None:
        self._memory.replace_all(registrations)
        self._memory.synced.set()

    def put(self, registration: Registration) -> None:
        self._memory.put(registration)

    def gone(self, registration: Registration) -> None:
        self._memory.drop(registration.id)
