"""docs/metrics.md has a row for every metric, and for no other; promtool has nothing to say against the page."""

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from broker.errors import Reason
from broker.metrics.counted import Metrics
from broker.model.client import ClientId
from monitoring.definitions import Definition, definitions
from tests.support.prometheus import promtool

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(tokenbroker_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
NOT_BOUNDED = {
    "subject",
    "audience",
    "remote",
    "address",
    "token",
    "jti",
    "id",
    "request_id",
    "trace_id",
    "path",
    "uid",
}
"""What callers or time can make new values of without end."""

Signature = tuple[str, str]
"""A metric's type, and its labels as the page writes them."""


def signature(metric: Definition) -> Signature:
    """Return what the page has to say of a metric."""
    return metric.kind, ", ".join(f"`{label}`" for label in metric.labels)


def documented() -> dict[str, Signature]:
    """Return what the page says."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {name: (kind, labels.strip()) for name, kind, labels, _meaning, _bound in rows}


@pytest.mark.parametrize(("name", "metric"), definitions().items(), ids=definitions())
def test_a_metric_is_documented(name: str, metric: Definition) -> None:
    """With its type, its labels, what it means, and how many series it can have."""
    kind, labels = signature(metric)
    row = f"| `{name}` | {kind} | {labels} | {metric.text} | HOW MANY SERIES AT MOST |"

    assert documented().get(name) == (kind, labels), (
        f"docs/metrics.md needs this row (say the bound), and run `make monitoring` for a panel:\n{row}"
    )


def test_no_metric_is_documented_that_is_not_there() -> None:
    """Who builds an alert on the page gets what it promises."""
    gone = documented().keys() - definitions()

    assert not gone, f"docs/metrics.md has rows of what the broker does not have: {', '.join(sorted(gone))}"


def test_no_label_grows_without_bound() -> None:
    """Of clients only their names are labels, which the registry bounds."""
    metrics = definitions()
    wrong = {name: sorted(NOT_BOUNDED & set(metric.labels)) for name, metric in metrics.items()}

    assert not {name: labels for name, labels in wrong.items() if labels}


def test_promtool_has_no_objections(tmp_path: Path) -> None:
    """Names, units, types and help texts are as Prometheus' own linter wants them."""
    metrics, client = Metrics(), ClientId("shop", "web")
    metrics.issued(client, "default")
    metrics.refused(client, Reason.TTL_OUT_OF_RANGE)
    metrics.client_conditions(client, {("Ready", "InvalidSpec")})
    metrics.vault.vault_times(client, "default", expiry=2.0, renewal=1.0)
    metrics.scraped.source("clients", lambda: 1.0)
    page = tmp_path / "metrics"
    page.write_bytes(generate_latest(metrics.registry))

    with page.open("rb") as read:
        told = subprocess.run([promtool(), "check", "metrics"], stdin=read, capture_output=True, text=True, check=False)

    assert (told.returncode, told.stdout + told.stderr) == (0, "")
