"""Histograms of times: what Prometheus is shown is what was observed."""

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from broker.metrics.durations import Durations

BUCKETS = (0.001, 0.5, 2)
TIMES = (0.0, 0.001, 0.0011, 0.5, 1.9, 2.0, 2.1, 3600.0)


def test_a_page_is_that_of_the_clients_library_own_histogram() -> None:
    """The same numbers observed: bounds belong to their bucket, and nothing is lost beyond the last one."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Durations(ours, "took_seconds", "How long it took.", BUCKETS)
    its = Histogram("took_seconds", "How long it took.", registry=theirs, buckets=BUCKETS)
    for seconds in TIMES:
        mine.observe(seconds)
        its.observe(seconds)

    shown = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == shown


def test_an_exemplar_stands_by_its_bucket() -> None:
    """The last one that was observed there."""
    registry = CollectorRegistry()
    durations = Durations(registry, "took_seconds", "How long it took.", BUCKETS)
    durations.observe(0.3, {"trace_id": "a"})
    durations.observe(0.4, {"trace_id": "b"})
    durations.observe(0.45)
    durations.observe(9)

    shown = [line for line in openmetrics(registry).decode().splitlines() if "trace_id" in line]  # type: ignore[no-untyped-call]
    assert len(shown) == 1
    assert shown[0].startswith('took_seconds_bucket{le="0.5"} 3.0 # {trace_id="b"} 0.4 ')
