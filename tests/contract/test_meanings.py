"""Whatever reason the broker writes into a condition, the doctor knows what it means."""

import re
from pathlib import Path

from broker.cli import release
from broker.cli.doctor.meanings import CONDITIONS, codes, condition_meaning
from broker.errors import Reason
from broker.model.client import ClientId
from broker.model.status import camel

_STATUS = (Path(__file__).parents[2] / "broker" / "model" / "status.py").read_text()
_REASONS = re.findall(r'"(?:False|Unknown)", "(\w+)"', _STATUS)


def test_every_code_is_explained_by_its_documentation() -> None:
    """docs/errors.md is the one place where codes are explained."""
    known = codes(release.text(release.ERRORS))

    assert set(known) == {str(reason) for reason in Reason}
    for reason in Reason:
        meaning = condition_meaning(camel(reason), known)
        assert meaning is not None
        assert meaning.text.endswith(".")


def test_every_other_reason_of_a_condition_is_explained() -> None:
    """And none is explained that no condition has."""
    assert {*_REASONS, "AccessMissing", "RulesIncomplete"} == set(CONDITIONS)


def test_a_reason_of_another_release_has_no_meaning() -> None:
    """The condition's own message is all that there is then."""
    assert condition_meaning("NeverHeardOf", {}) is None


def test_lines_name_the_client() -> None:
    """What a person copies works as it is."""
    line = CONDITIONS["Expired"].line(ClientId("shop", "web"))

    assert line == """kubectl patch tokenclient web -n shop --type merge -p '{"spec":{"notAfter":null}}'"""
