"""The words of the code, of openapi.yaml and of docs/errors.md are the same."""

import re
from pathlib import Path

import pytest
import yaml
from openapi_spec_validator import validate

from broker.errors import ProofFailure, Reason
from broker.http.problems import STATUS

ROOT = Path(__file__).parents[2]
CONTRACT = yaml.safe_load((ROOT / "openapi.yaml").read_text())
ERRORS = (ROOT / "docs" / "errors.md").read_text()


def test_the_contract_is_valid_openapi() -> None:
    """openapi.yaml follows the OpenAPI 3.1 specification."""
    validate(CONTRACT)

    assert CONTRACT["openapi"].startswith("3.1")


def test_every_reason_has_a_status_and_is_in_the_contract() -> None:
    """No code is sent that the contract does not know, and none is promised that is never sent."""
    promised = CONTRACT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]

    assert set(promised) == {reason.value for reason in Reason}
    assert set(STATUS) == set(Reason)


def test_every_reason_is_documented_with_its_status() -> None:
    """docs/errors.md has a row for each code, with the status that is sent."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", ERRORS, re.MULTILINE))

    assert rows == {reason.value: str(STATUS[reason]) for reason in Reason}
    for failure in ProofFailure:
        assert f"`{failure}`" in ERRORS


CHAOS = ROOT / "tests" / "chaos"
NO_FAULT = {
    "test_dashboard": "what Grafana's panels show, an account missing and a Role taken away: docs/monitoring.md",
    "test_soak": "random faults under load, with a chapter of their own",
    "test_a_standby_answers_with_what_was_written": "nothing is harmed: it is in the table of OpenBao's answers",
}
"""Modules and tests in tests/chaos that no row is about, and why."""

ALERTS = "test_alerts"
"""How modules begin whose tests let alerts fire: their table is in docs/monitoring.md."""


@pytest.mark.parametrize("module", sorted(path.stem for path in CHAOS.glob("test_*.py")))
def test_every_fault_is_in_the_table(module: str) -> None:
    """docs/reliability.md says of each fault that is tried what clients see and how long."""
    code = (CHAOS / f"{module}.py").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    tests = {*re.findall(r"^(?:async )?def (test_\w+)", code, re.MULTILINE)}

    assert tests
    if module not in NO_FAULT and not module.startswith(ALERTS):
        assert tests - {*rows} <= {*NO_FAULT}


def test_every_row_is_about_a_test() -> None:
    """No row, and no exception, is left of a test that is not there any more."""
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    modules = {path.stem: path.read_text(encoding="utf-8") for path in CHAOS.glob("test_*.py")}
    tests = {name for code in modules.values() for name in re.findall(r"def (test_\w+)", code)}

    assert {*rows} <= tests
    assert {*NO_FAULT} <= tests | {*modules}
