"""Histograms of times without labels: three of them are observed for each token, which took a part of its CPU time."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from broker.metrics.defined import Defined


class Durations(Defined):
    """A histogram of seconds. ``buckets`` are upper bounds, rising; the last one, without end, is added to them."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, buckets: Sequence[float]) -> None:
        super().__init__(registry, "histogram", name, text)
        self._bounds = tuple(map(float, buckets))
        self._counts = [0] * (len(self._bounds) + 1)
        self._exemplars: list[Exemplar | None] = [None] * len(self._counts)
        self._sum = 0.0

    def observe(self, seconds: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Count a time; ``exemplar`` names one that is shown with its bucket, by labels of 128 characters at most."""
        bucket = bisect_left(self._bounds, seconds)
        self._counts[bucket] += 1
        self._sum += seconds
        if exemplar:
            self._exemplars[bucket] = Exemplar(dict(exemplar), seconds, time.time())

    def collect(self) -> Iterator[Metric]:
        """Return what was counted so far."""
        metric, so_far = self.empty(), 0
        for bound, count, exemplar in zip((*self._bounds, float("inf")), self._counts, self._exemplars, strict=True):
            so_far += count
            labels = {"le": floatToGoString(bound)}  # type: ignore[no-untyped-call]
            metric.samples.append(Sample(f"{self.name}_bucket", labels, so_far, None, exemplar))
        metric.samples.append(Sample(f"{self.name}_count", {}, so_far))
        metric.samples.append(Sample(f"{self.name}_sum", {}, self._sum))
        yield metric
