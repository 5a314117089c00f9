"""What commands print, for programs and for terminals."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.output import printable, to_json, to_yaml
from broker.cli.times import both, parse_time, relative, span

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize("word", ["null", "123", "1e3", "true", "y", "no", "Off", "~", "", "0x1f", "1_000", "-", ".5"])
def test_names_that_look_like_other_things_are_quoted(word: str) -> None:
    """YAML readers differ in what they take for numbers and booleans; quotes leave no choice."""
    assert f'name: "{word}"\n' in to_yaml([{"name": word}])


@given(st.recursive(st.text() | st.booleans() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_yaml_and_json_are_read_back_as_written(document: object) -> None:
    """No text is changed on the way, whatever it holds."""
    assert list(yaml.safe_load_all(to_yaml([document]))) == [document]
    assert json.loads(to_json(document)) == document


def test_equal_parts_are_written_out() -> None:
    """Manifests for git have no anchors and aliases."""
    shared = {"a": "b"}

    assert re.search(r"[&*]", to_yaml([{"one": shared, "two": shared}])) is None


def test_terminals_cannot_be_repainted() -> None:
    """Control characters in what others wrote do not reach the terminal."""
    assert printable("a\x1b[2Jb\r\n\x9bc\u202ed") == "a [2Jb   c d"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (90, "1m30s"), (3600, "1h"), (5400, "1h30m"), (45000, "12h")],
)
def test_spans_are_short(seconds: int, text: str) -> None:
    """One unit, and a second one where the first is small."""
    assert span(seconds) == text


def test_times_say_how_far_away_they_are() -> None:
    """A time is written in full, and as a distance from now."""
    later = parse_time("2026-11-24T09:14:00Z")

    assert both(later, NOW) == "2026-11-24 09:14:00 UTC (in 14m)"
    assert relative(NOW - timedelta(days=3), NOW) == "3d ago"
