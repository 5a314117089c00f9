"""docs/security-model.md names tests for what it promises; each of them is there."""

import re

import pytest

from tests.support.broker import ROOT

PAGES = ("security-model.md", "locks.md", "revocation.md", "verification.md", "compromise.md", "registry.md")
TESTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
NAMES = {name for text in TESTS.values() for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    """By its name, or by its file."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    names = set(re.findall(r"`(test_\w+)`", text))

    assert {file for file in files if not (ROOT / file).is_file()} == set()
    assert names - NAMES == set()


def test_every_promise_names_a_test() -> None:
    """Each row of the tables of promises has something in its last column that attacks it."""
    text = (ROOT / "docs" / "security-model.md").read_text(encoding="utf-8")
    promises = text.partition("## What each stolen credential is worth")[0]
    rows = [line.split("|") for line in promises.splitlines() if line.startswith("| ")]
    bare = [row[1].strip() for row in rows if "test_" not in row[-2] and "tests/" not in row[-2]]

    assert set(bare) == {"promise"}
