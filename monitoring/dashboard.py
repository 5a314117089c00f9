"""A Grafana dashboard of all metrics: a panel each, made from its definition.

Source: https://grafana.com/docs/grafana/latest/visualizations/dashboards/build-dashboards/view-dashboard-json-model/
"""

from collections.abc import Iterator, Mapping
from typing import Any

from monitoring.definitions import Definition, definitions
from monitoring.panels import RATE, Panel, Query, panel

COLUMNS, WIDTH, HEIGHT = 24, 8, 7

ROWS: Mapping[str, tuple[str, ...]] = {
    "State": ("unready", "leader", "client_ready", "client_condition", "registered_clients", "build_info"),
    "Traffic": (
        "tokens_issued_total",
        "tokens_reused_total",
        "requests_in_flight",
        "requests_waiting",
        "tokens_revoked_total",
        "grants_ended_total",
    ),
    "Refusals and errors": (
        "requests_refused_total",
        "requests_shed_total",
        "http_problems_total",
        "authentication_failures_total",
        "token_request_failures_total",
        "audit_failures_total",
        "orphaned_grants",
    ),
    "Latency": (
        "request_duration_seconds",
        "request_wait_duration_seconds",
        "token_request_duration_seconds",
    ),
    "Vault": (
        "vault_token_expiry_timestamp_seconds",
        "vault_token_renewal_timestamp_seconds",
        "vault_unreachable",
        "vault_writes_total",
        "vault_logins_total",
    ),
    "Leadership and what it follows": (
        "leader_changes_total",
        "registry_age_seconds",
        "watch_restarts_total",
        "policy_missing",
        "registry_broken_files",
        "events_lost_total",
    ),
    "Work": ("queue_length", "queue_overdue_seconds", "tasks", "credential_expiry_timestamp_seconds"),
}
"""In which row a metric is, without its prefix. What is named nowhere is in the last one."""

REST = "More"

PROCESS = (
    Panel(
        "CPU",
        "Seconds of CPU a second.",
        "short",
        (Query(f'rate(process_cpu_seconds_total{{job=~"$job"}}{RATE})', ""),),
    ),
    Panel("Memory", "Resident memory.", "bytes", (Query('process_resident_memory_bytes{job=~"$job"}', ""),)),
    Panel("File descriptors", "Those that are open.", "short", (Query('process_open_fds{job=~"$job"}', ""),)),
)
"""What the client library tells of the process."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana imports it."""
    return {
        "title": "tokenbroker",
        "uid": "tokenbroker",
        "description": "Made by `make monitoring` from the broker's own metrics.",
        "tags": ["tokenbroker", "kubernetes"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": list(_placed()),
    }


def _rows(metrics: Mapping[str, Definition]) -> Iterator[tuple[str, list[Panel]]]:
    left = dict(metrics)
    for title, names in ROWS.items():
        yield title, [panel(left.pop(f"tokenbroker_{name}")) for name in names]
    yield REST, [*map(panel, left.values()), *PROCESS]


def _placed() -> Iterator[dict[str, Any]]:
    """Return all panels with their places: rows below each other, three panels in a line."""
    number, top = 0, 0
    for title, panels in _rows(definitions()):
        number += 1
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place}
        top += 1
        for index, one in enumerate(panels):
            number += 1
            line, column = divmod(index, COLUMNS // WIDTH)
            place = {"x": column * WIDTH, "y": top + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            yield {"id": number, "gridPos": place, **_panel(one)}
        top += -(-len(panels) * WIDTH // COLUMNS) * HEIGHT


def _panel(one: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": source,
            "expr": query.expression,
            "legendFormat": query.legend or "{{instance}}",
        }
        for number, query in enumerate(one.queries)
    ]
    return {
        "type": "timeseries",
        "title": one.title,
        "description": one.text,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": one.unit}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    yield _variable("job", "label_values(tokenbroker_build_info, job)")
    yield _variable("namespace", 'label_values(tokenbroker_client_ready{job=~"$job"}, namespace)')
    yield _variable("client", 'label_values(tokenbroker_client_ready{job=~"$job", namespace=~"$namespace"}, client)')


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "label": name.capitalize(),
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
