"""The alert rules as operators get them."""

from typing import Any

import yaml

from tests.support.broker import ROOT

COMPONENT = ROOT / "deploy" / "components" / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((COMPONENT / "rules.yaml").read_text())
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
RUNBOOKS = "https://tokenbroker.dev/runbooks/"


def severity(alert: str) -> str:
    """Return how urgent an alert is."""
    return str(ALERTS[alert]["labels"]["severity"])
