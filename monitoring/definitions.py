"""The broker's metrics, as they are defined."""

from dataclasses import dataclass

from prometheus_client.metrics import MetricWrapperBase

from broker.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric by the name that Prometheus knows it by; ``kind`` is ``counter``, ``gauge`` or ``histogram``."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]


def definitions() -> dict[str, Definition]:
    """Return all of the broker's own metrics by their names."""
    registry = Metrics().registry
    found = [it for it in registry._collector_to_names if isinstance(it, MetricWrapperBase)]  # noqa: SLF001 - no other way
    return {made.name: made for made in map(_definition, found)}


def _definition(metric: MetricWrapperBase) -> Definition:
    name, kind = metric._name, str(metric._type)  # noqa: SLF001 - as above
    labels = tuple(str(label) for label in metric._labelnames)  # noqa: SLF001 - as above
    return Definition(f"{name}_total" if kind == "counter" else name, kind, metric._documentation, labels)  # noqa: SLF001
