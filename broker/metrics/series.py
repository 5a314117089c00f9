"""Metrics with a series for each client, kept as numbers: with ten thousand clients a child object each takes too much.

A client's series are found, and dropped, without a search.
"""

from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from broker.metrics.defined import Defined
from broker.model.client import ClientId

Labels = tuple[str, ...]


class ClientSeries(Defined):
    """A counter or gauge whose first labels are ``namespace`` and ``client``, by a client's further labels."""

    def __init__(self, registry: CollectorRegistry, kind: str, name: str, text: str, labels: Labels) -> None:
        super().__init__(registry, kind, name, text, ("namespace", "client", *labels))
        self._values: dict[ClientId, dict[Labels, float]] = {}

    def collect(self) -> Iterator[Metric]:
        """Return all series as they are now."""
        metric = self.empty()
        name = f"{self.name}_total" if self.kind == "counter" else self.name
        metric.samples = [
            Sample(name, dict(zip(self.labels, (client.namespace, client.name, *labels), strict=True)), value)
            for client, values in self._values.items()
            for labels, value in values.items()
        ]
        yield metric

    def inc(self, client: ClientId, *labels: str) -> None:
        """Count one."""
        values = self._values.get(client)
        if values is None:
            values = self._values[client] = {}
        values[labels] = values.get(labels, 0.0) + 1

    def set(self, value: float, client: ClientId, *labels: str) -> None:
        """Set a series."""
        values = self._values.get(client)
        if values is None:
            values = self._values[client] = {}
        values[labels] = value

    def drop(self, client: ClientId, *labels: str) -> None:
        """Drop one series, if it is there."""
        values = self._values.get(client, {})
        values.pop(labels, None)
        if not values:
            self._values.pop(client, None)

    def keep(self, client: ClientId, wanted: Collection[Labels]) -> None:
        """Drop all of a client's series but those with these further labels."""
        for labels in [known for known in self._values.get(client, ()) if known not in wanted]:
            self.drop(client, *labels)

    def forget(self, client: ClientId) -> None:
        """Drop all series of a client."""
        self._values.pop(client, None)

    def clear(self) -> None:
        """Drop the series of all clients."""
        self._values.clear()
