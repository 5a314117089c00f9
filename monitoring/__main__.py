"""``python -m monitoring`` writes what is made into deploy/components/monitoring."""

import json
from pathlib import Path

import yaml

from monitoring.dashboard import dashboard
from monitoring.operator_rules import prometheus_rule

COMPONENT = Path(__file__).parents[1] / "deploy" / "components" / "monitoring"
MADE = "# Made from rules.yaml by `make monitoring`.\n"


def files() -> dict[str, str]:
    """Return what belongs into each file, by its name."""
    rules = yaml.safe_load((COMPONENT / "rules.yaml").read_text(encoding="utf-8"))
    return {
        "prometheus-rule.yaml": MADE + yaml.safe_dump(prometheus_rule(rules), sort_keys=False, width=120),
        "dashboard.json": json.dumps(dashboard(), indent=2) + "\n",
    }


def main() -> None:
    """Write them."""
    for name, text in files().items():
        (COMPONENT / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
