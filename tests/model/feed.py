"""How a replica's memories follow the API server: a model of what :mod:`broker.kube.reflector` does."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from broker.errors import BrokerError
from broker.kube.namespaces import WatchedNamespaces
from broker.kube.reflector import STALE_SECONDS
from broker.model.client import ClientId
from broker.ports import Registration
from broker.registration.memory import Memory, SizeMetrics
from tests.model.kubernetes import Kubernetes
from tests.model.wire import Wire

BOOKMARK_SECONDS = 45.0
AGAIN_SECONDS = 10.0
IN_ORDER = 1e-6
LAG_SECONDS = 4.0
"""How late a watch that lags delivers."""


@dataclass(slots=True)
class Sight:
    """What becomes of a replica's watches: ``cut`` ones are half open and say nothing, ``lag`` is in seconds."""

    cut: bool = False
    lag: float = 0.0


class Watch:
    """One watch. ``listed`` and ``told`` are what follows it; ``heard`` is called with each sign of life."""

    def __init__(self, wire: Wire, sight: Sight, lists: Callable[[], object], listed: Callable[[object], None]) -> None:
        self._wire = wire
        self._sight = sight
        self._lists = lists
        self._listed = listed
        self._silent = True
        self._round = 0
        self._last = 0.0
        self._before: list[Callable[[], None]] | None = None

    def tell(self, what: Callable[[], None]) -> None:
        """Deliver an event after the lag, in order, if the watch does not break or fall silent before."""
        loop, number = asyncio.get_running_loop(), self._round
        if self._deaf:
            return
        lagging = self._sight.lag or self._last > loop.time()
        self._last = max(self._last + IN_ORDER, loop.time() + self._sight.lag) if lagging else 0.0

        def deliver() -> None:
            if number != self._round or self._deaf:
                return
            if self._before is None:
                what()
            else:
                self._before.append(what)

        loop.call_at(self._last, deliver) if lagging else loop.call_soon(deliver)

    async def run(self, heard: Callable[[], None]) -> None:
        """Follow until cancelled."""
        while True:
            try:
                found = await self._wire.call("list", self._list)
            except BrokerError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self._listed(found)
            before, self._before = self._before or [], None
            for what in before:
                what()
            await self._follow(heard)

    def _list(self, late: bool) -> object:  # noqa: FBT001 - what the wire says
        """List everything; what changes from here on is heard of after that, as by its resource version."""
        if not late:
            self._round += 1
            self._silent, self._before = False, []
        return self._lists()

    async def _follow(self, heard: Callable[[], None]) -> None:
        silent = 0.0
        while silent < STALE_SECONDS:
            await asyncio.sleep(BOOKMARK_SECONDS)
            if self._deaf:
                self._silent = True  # a half-open connection does not come back
                silent += BOOKMARK_SECONDS
            else:
                heard()

    @property
    def _deaf(self) -> bool:
        if self._sight.cut or not self._wire.reaches("kube"):
            self._silent = True
        return self._silent


class FollowingRegistry(Memory):
    """Implements LiveRegistry: the broker's own memory, fed by a model of the watch."""

    def __init__(self, kube: Kubernetes, wire: Wire, sight: Sight, metrics: SizeMetrics) -> None:
        super().__init__(metrics, source="the watch on TokenClients", stale_seconds=STALE_SECONDS)
        self._watch = Watch(wire, sight, kube.snapshot, self._all)
        kube.watchers.append(self._event)

    @property
    def trouble(self) -> str:
        """See :attr:`broker.ports.LiveRegistry.trouble`."""
        return ""

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._watch.run(self.heard)

    def _all(self, found: object) -> None:
        assert isinstance(found, list)
        self.replace_all(found)
        self.synced.set()

    def _event(self, client_id: ClientId, registration: Registration | None) -> None:
        def take() -> None:
            self.heard()
            if registration is None:
                self.drop(client_id)
            else:
                self.put(registration)

        self._watch.tell(take)


class FollowedNamespaces:
    """Feeds the broker's own memory of labels by a model of the watch."""

    def __init__(self, kube: Kubernetes, wire: Wire, sight: Sight, labels: WatchedNamespaces) -> None:
        self._labels = labels
        self._kube = kube
        self._watch = Watch(wire, sight, kube.labels, self._all)
        kube.labels_watchers.append(self._event)

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._watch.run(self._labels.heard)

    def _all(self, found: object) -> None:
        assert isinstance(found, list)
        self._labels.listed(found)

    def _event(self) -> None:
        (namespace,) = self._kube.labels()

        def take() -> None:
            self._labels.heard()
            self._labels.put(namespace)

        self._watch.tell(take)
