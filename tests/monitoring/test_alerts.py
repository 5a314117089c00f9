"""Each alert fires when it must, and says what an operator needs; and does not when it must not."""

import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.monitoring.rules import ALERTS, RUNBOOKS, severity
from tests.support.prometheus import promtool

TEXT = (Path(__file__).parent / "alerts.yaml").read_text()
CASES = yaml.load(TEXT, Loader=yaml.BaseLoader)  # noqa: S506 - it makes strings only; 0x20 is no number here
REPLICAS = {"A": 'job="tokenbroker",instance="a"', "B": 'job="tokenbroker",instance="b"'}
REPEATED = re.compile(r"(Inf|NaN)x(\d+)")
"""What promtool repeats of numbers only."""


NAMED = {
    f"{alert}-{kind}-{number}": (alert, case)
    for alert, both in CASES.items()
    for kind in ("fires", "silent")
    for number, case in enumerate(both[kind])
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Let promtool test all cases at once, and return what it says of those that failed."""
    folder = tmp_path_factory.mktemp("alerts")
    tests = [{"name": name, **_test(alert, case)} for name, (alert, case) in NAMED.items()]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": tests}
    (folder / "rules.yaml").write_text(yaml.safe_dump(without_description()))
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    command = [str(promtool()), "test", "rules", "--junit=junit.xml", "test.yaml"]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    found = ET.parse(folder / "junit.xml").iter("testcase")  # noqa: S314 - promtool's own
    said = {case.attrib["name"]: "".join(part.text or "" for part in case) for case in found}
    assert len(said) == len(tests)
    return {name: text for name, text in said.items() if text}


@pytest.mark.parametrize("name", NAMED)
def test_an_alert_fires_when_it_must(name: str, failures: dict[str, str]) -> None:
    """With the labels and the summary of its case, its severity and its runbook; and is silent when it must be."""
    assert failures.get(name, "") == ""


def test_every_alert_has_cases() -> None:
    """One at least that fires and one that does not, and none is tested that is not there."""
    assert CASES.keys() == ALERTS.keys()
    assert all(both["fires"] and both["silent"] for both in CASES.values())


def without_description() -> dict[str, Any]:
    """Return the rules without what says more than the summary: cases do not repeat it."""
    rules = [
        {**rule, "annotations": {key: text for key, text in rule["annotations"].items() if key != "description"}}
        for rule in ALERTS.values()
    ]
    return {"groups": [{"name": "alerts", "rules": rules}]}


def _test(alert: str, case: dict[str, Any]) -> dict[str, Any]:
    expected = [_expected(alert, case)] if "summary" in case else []
    return {
        "interval": "15s",
        "input_series": [{"series": _filled(name), "values": _values(said)} for name, said in case["series"].items()],
        "alert_rule_test": [{"eval_time": case["at"], "alertname": alert, "exp_alerts": expected}],
    }


def _expected(alert: str, case: dict[str, Any]) -> dict[str, Any]:
    labels = dict(case["labels"])
    if labels.pop("A", None) is not None:
        labels |= {"job": "tokenbroker", "instance": "a"}
    return {
        "exp_labels": labels | {"severity": severity(alert)},
        "exp_annotations": {"summary": case["summary"], "runbook_url": f"{RUNBOOKS}{alert}"},
    }


def _filled(series: str) -> str:
    for name, labels in REPLICAS.items():
        series = series.replace(f"{{{name}}}", f"{{{labels}}}").replace(f"{{{name},", f"{{{labels},")
    return series


def _values(said: str) -> str:
    return REPEATED.sub(lambda found: " ".join([found[1]] * (int(found[2]) + 1)), said)
