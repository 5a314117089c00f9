"""What a metric of the broker's own says of itself, beside its numbers."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Defined(Collector):
    """A metric with a name, a text and labels; ``kind`` is ``counter``, ``gauge`` or ``histogram``."""

    def __init__(
        self, registry: CollectorRegistry, kind: str, name: str, text: str, labels: tuple[str, ...] = ()
    ) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.labels = labels
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return what it is called, without any series."""
        return [self.empty()]

    def empty(self) -> Metric:
        """Return it without any series, which whoever collects fills in."""
        return Metric(self.name, self.text, self.kind)
