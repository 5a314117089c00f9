"""The metrics of the gate for callers: how long requests waited, and why some were refused early."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from broker.metrics.durations import Durations
from broker.services.storms.gate import Shed


class Waits:
    """Implements :class:`broker.services.storms.gate.GateMetrics`."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        self._shed = Counter(
            "tokenbroker_requests_shed", "Requests refused early for overload, by why.", ["reason"], registry=registry
        )
        self._waits = Durations(
            registry,
            "tokenbroker_request_wait_duration_seconds",
            "Time for which those requests waited that did not have their turn at once.",
            buckets,
        )
        for why in Shed:
            self._shed.labels(why.value)

    def shed(self, why: Shed) -> None:
        """Count a request that was refused early."""
        self._shed.labels(why.value).inc()

    def waited(self, seconds: float) -> None:
        """Observe how long a request waited for its turn."""
        self._waits.observe(seconds)
