"""Series that belong to clients, each remembered with its client: all of one's can be dropped without a search."""

from collections.abc import Collection
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge

from broker.model.client import ClientId

M = TypeVar("M", Counter, Gauge)


class ClientSeries(Generic[M]):
    """A metric whose first labels are ``namespace`` and ``client``."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[ClientId, dict[tuple[str, ...], M]] = {}

    def of(self, client: ClientId, *labels: str) -> M:
        """Return a client's series by its further labels, made where it is not there yet."""
        children = self._children.get(client)
        if children is None:
            children = self._children[client] = {}
        child = children.get(labels)
        if child is None:
            child = children[labels] = self._metric.labels(client.namespace, client.name, *labels)
        return child

    def drop(self, client: ClientId, *labels: str) -> None:
        """Drop one series, if it is there."""
        children = self._children.get(client, {})
        if children.pop(labels, None) is not None:
            self._metric.remove(client.namespace, client.name, *labels)
        if not children:
            self._children.pop(client, None)

    def keep(self, client: ClientId, wanted: Collection[tuple[str, ...]]) -> None:
        """Drop all of a client's series but those with these further labels."""
        for labels in [known for known in self._children.get(client, ()) if known not in wanted]:
            self.drop(client, *labels)

    def forget(self, client: ClientId) -> None:
        """Drop all series of a client."""
        self.keep(client, ())

    def clear(self) -> None:
        """Drop the series of all clients."""
        self._children.clear()
        self._metric.clear()
