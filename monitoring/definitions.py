"""The broker's metrics, as they are defined."""

from dataclasses import dataclass

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from broker.metrics.counted import Metrics
from broker.metrics.defined import Defined


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric by the name that Prometheus knows it by; ``kind`` is ``counter``, ``gauge`` or ``histogram``."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]


def definitions() -> dict[str, Definition]:
    """Return all of the broker's own metrics by their names."""
    collectors = Metrics().registry._collector_to_names  # noqa: SLF001 - no other way
    return {made.name: made for made in map(_definition, collectors) if made is not None}


def _definition(metric: Collector) -> Definition | None:
    if isinstance(metric, Defined):
        name, kind, text, labels = metric.name, metric.kind, metric.text, metric.labels
    elif isinstance(metric, MetricWrapperBase):
        name, kind, text = metric._name, str(metric._type), metric._documentation  # noqa: SLF001 - as above
        labels = tuple(str(label) for label in metric._labelnames)  # noqa: SLF001 - as above
    else:
        return None
    return Definition(f"{name}_total" if kind == "counter" else name, kind, text, labels)
