"""What a panel asks Prometheus for, by the kind of its metric."""

from collections.abc import Mapping
from dataclasses import dataclass

from monitoring.definitions import Definition

RATE = "[$__rate_interval]"
MOST = 10
"""So many clients are shown at most: those with the most, or with the least time."""


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and how its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """What is shown of one metric; ``unit`` is Grafana's word for it."""

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]


SPECIAL: Mapping[str, tuple[Query, ...]] = {
    # Names of clients, where all are wanted: numbers of them else.
    "tokenbroker_client_ready": (
        Query("count(tokenbroker_client_ready{CLIENT} == 1) or vector(0)", "ready"),
        Query("count(tokenbroker_client_ready{CLIENT} == 0) or vector(0)", "not ready"),
    ),
    "tokenbroker_client_condition": (
        Query("count by (type, reason) (tokenbroker_client_condition{CLIENT}) or vector(0)", "{{type}} {{reason}}"),
    ),
    "tokenbroker_orphaned_grants": (
        Query(
            "sum by (namespace, client) (tokenbroker_orphaned_grants{CLIENT}) or vector(0)", "{{namespace}}/{{client}}"
        ),
    ),
    "tokenbroker_leader": (Query("sum(tokenbroker_leader{JOB})", "leaders"),),
    "tokenbroker_build_info": (Query("count by (version) (tokenbroker_build_info{JOB})", "{{version}}"),),
}
"""Metrics that say more when they are asked for otherwise than by their kind."""


def panel(metric: Definition) -> Panel:
    """Return the panel of a metric."""
    unit, queries = _by_kind(metric)
    queries = SPECIAL.get(metric.name, queries)
    return Panel(_title(metric.name), metric.text, unit, tuple(_chosen(query) for query in queries))


def _title(name: str) -> str:
    words = name.removeprefix("tokenbroker_").removesuffix("_total").removesuffix("_timestamp_seconds")
    return words.removesuffix("_seconds").replace("_", " ").capitalize()


def _by_kind(metric: Definition) -> tuple[str, tuple[Query, ...]]:
    legend = "/".join(f"{{{{{label}}}}}" for label in metric.labels) or "{{instance}}"
    of_clients = "client" in metric.labels
    chosen, by = ("CLIENT" if of_clients else "JOB"), ", ".join(metric.labels or ("instance",))
    series = f"{metric.name}{{{chosen}}}"
    if metric.kind == "histogram":
        return "s", tuple(_quantile(metric.name, share) for share in (0.5, 0.9, 0.99))
    if metric.kind == "counter":
        rate = f"sum by ({by}) (rate({series}{RATE}))"
        return "ops", (Query(f"topk({MOST}, {rate})" if of_clients else rate, legend),)
    if metric.name.endswith("_timestamp_seconds"):
        left = f"min by ({by}) ({series}) - time()"
        return "s", (Query(f"bottomk({MOST}, {left})" if of_clients else left, legend),)
    largest = f"max by ({by}) ({series})"
    unit = "s" if metric.name.endswith("_seconds") else "short"
    return unit, (Query(f"topk({MOST}, {largest})" if of_clients else largest, legend),)


def _quantile(name: str, share: float) -> Query:
    return Query(f"histogram_quantile({share}, sum by (le) (rate({name}_bucket{{JOB}}{RATE})))", f"p{share * 100:g}")


def _chosen(query: Query) -> Query:
    """Return the query for what is chosen at the top of the dashboard."""
    job = 'job=~"$job"'
    clients = f'{job}, namespace=~"$namespace", client=~"$client"'
    return Query(query.expression.replace("CLIENT", clients).replace("JOB", job), query.legend)
