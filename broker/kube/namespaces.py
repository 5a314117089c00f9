"""The labels of namespaces, by which the operator opts them in and bounds them."""

import asyncio
from collections.abc import Callable, Mapping

from broker.kube import reflector
from broker.kube.reflector import Reflector, Resource, WatchMetrics
from broker.kube.session import KubeSession
from broker.registration.freshness import Freshness

PATH = "/api/v1/namespaces"
NONE: Mapping[str, str] = {}


def _nobody_listens(_namespace: str) -> None:
    """Serve where nothing has to follow."""


class WatchedNamespaces:
    """A memory of labels fed by a watch. ``on_change`` is called with each namespace whose labels came or changed."""

    def __init__(self, session: KubeSession, metrics: WatchMetrics) -> None:
        self.on_change: Callable[[str], None] = _nobody_listens
        self._labels: dict[str, Mapping[str, str]] = {}
        self.synced = asyncio.Event()
        """Set once all labels are known."""
        self._freshness = Freshness("its namespaces", "the watch on Namespaces", reflector.STALE_SECONDS)
        self._reflector = Reflector(session, "Namespaces", PATH, self, metrics, essence=_essence)

    @property
    def age(self) -> float:
        """How many seconds ago the source was heard of; infinite where it never was."""
        return self._freshness.age

    @property
    def fresh(self) -> bool:
        """Tell whether the labels are young enough to decide from."""
        return self._freshness.fresh

    @property
    def trouble(self) -> str:
        """Why nothing is heard of them; empty where something is."""
        return self._reflector.trouble

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Return a namespace's labels as last seen.

        Raises BrokerError(registry_stale) before any were, and where they are too old: the operator may have taken
        back since what they allowed.
        """
        self._freshness.require()
        return self._labels.get(namespace, NONE)

    async def run(self) -> None:
        """Follow the Namespaces until cancelled."""
        await self._reflector.run()

    def heard(self) -> None:
        """Note that the labels are what the API server says now."""
        self._freshness.heard()

    def listed(self, resources: list[Resource]) -> None:
        """Know these and no others."""
        self.heard()
        before, self._labels = self._labels, {_name(one): _labels(one) for one in resources}
        self.synced.set()  # who is told may ask
        for name in before.keys() | self._labels.keys():
            if before.get(name) != self._labels.get(name):
                self.on_change(name)

    def put(self, resource: Resource) -> None:
        """Know one that came or changed."""
        name, labels = _name(resource), _labels(resource)
        if self._labels.get(name) != labels:
            self._labels[name] = labels
            self.on_change(name)

    def gone(self, resource: Resource) -> None:
        """Forget one that went."""
        self._labels.pop(_name(resource), None)


def _essence(resource: Resource) -> Resource:
    return {"metadata": {"name": _name(resource), "labels": _labels(resource)}}


def _name(resource: Resource) -> str:
    return str(resource["metadata"]["name"])


def _labels(resource: Resource) -> Mapping[str, str]:
    return dict(resource["metadata"].get("labels") or {})
