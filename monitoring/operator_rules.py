"""The alert rules as the Prometheus operator takes them."""

from typing import Any

API_VERSION = "monitoring.coreos.com/v1"


def prometheus_rule(rules: dict[str, Any]) -> dict[str, Any]:
    """Return the PrometheusRule of a file of rules."""
    labels = {"app.kubernetes.io/name": "tokenbroker"}
    return {
        "apiVersion": API_VERSION,
        "kind": "PrometheusRule",
        "metadata": {"name": "tokenbroker", "namespace": "tokenbroker", "labels": labels},
        "spec": rules,
    }
