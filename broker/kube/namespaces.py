"""The labels of namespaces, by which the operator opts them in and bounds them."""

import asyncio
from collections.abc import Callable, Mapping

from broker.errors import BrokerError, Reason
from broker.kube.reflector import Reflector, Resource, WatchMetrics
from broker.kube.session import KubeSession

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
        self._reflector = Reflector(session, "Namespaces", PATH, self, metrics)

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Return a namespace's labels as last seen. Raises BrokerError(registry_stale) before any were."""
        if not self.synced.is_set():
            raise BrokerError(
                Reason.REGISTRY_STALE,
                "The broker does not know its namespaces yet; try again shortly.",
                operator_detail="The Namespaces, whose labels say what is allowed there, could not be listed yet.",
                retry_after=5,
            )
        return self._labels.get(namespace, NONE)

    async def run(self) -> None:
        """Follow the Namespaces until cancelled."""
        await self._reflector.run()

    def heard(self) -> None:
        """Take no note of it: how old they may be, the registry decides for both."""

    def listed(self, resources: list[Resource]) -> None:
        """Know these and no others."""
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


def _name(resource: Resource) -> str:
    return str(resource["metadata"]["name"])


def _labels(resource: Resource) -> Mapping[str, str]:
    return dict(resource["metadata"].get("labels") or {})
