"""docs/security-model.md names tests for what it promises; each of them is there, is run, and checks something."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import ROOT

PAGES = (
    "security-model.md",
    "locks.md",
    "revocation.md",
    "verification.md",
    "compromise.md",
    "registry.md",
    "reliability.md",
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    """Return the functions of a module, and those inside of classes and other functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def words(node: ast.AST) -> set[str]:
    """Return the names that stand in a piece of code."""
    names = {it.id for it in ast.walk(node) if isinstance(it, ast.Name)}
    return names | {it.attr for it in ast.walk(node) if isinstance(it, ast.Attribute)}


def fails(function: Function) -> bool:
    """Tell whether a function by itself can fail a test."""
    return any(isinstance(it, ast.Assert | ast.Raise) for it in ast.walk(function)) or "raises" in words(function)


CODE = {path: list(functions(path)) for path in sorted((ROOT / "tests").rglob("*.py"))}
CHECKING = {one.name for known in CODE.values() for one in known if fails(one)}
TESTS = {
    str(path.relative_to(ROOT)): {one.name: one for one in known if one.name.startswith("test_")}
    for path, known in CODE.items()
    if path.name.startswith("test_")
}
NAMES = {name: test for tests in TESTS.values() for name, test in tests.items()}


def named(text: str) -> set[str]:
    """Return the tests that a text names, those of a file that it names without any of its own among them."""
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    names = set(re.findall(r"`(test_\w+)`", text))
    return names | {name for file in files for name in TESTS.get(file, ()) if not names & TESTS[file].keys()}


def _names(known: list[Function]) -> set[str]:
    return {one.name for one in known}


def promises() -> list[tuple[str, str]]:
    """Return the rows of the tables of promises: what is promised, and what attacks it."""
    text = (ROOT / "docs" / "security-model.md").read_text(encoding="utf-8")
    tables = text.partition("## What each stolen credential is worth")[0]
    rows = [[cell.strip() for cell in line.split("|")] for line in tables.splitlines() if line.startswith("| ")]
    return [(row[1], row[3]) for row in rows if row[1] != "promise"]


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    """By its name, or by its file."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))

    assert {file for file in files if not (ROOT / file).is_file()} == set()
    assert set(re.findall(r"`(test_\w+)`", text)) - NAMES.keys() == set()


def test_every_promise_names_a_test() -> None:
    """Each row of the tables has three columns, and something in its last one that attacks it."""
    assert len(promises()) > 40
    assert [promise for promise, attacked_by in promises() if not named(attacked_by)] == []


def test_what_attacks_a_promise_is_run() -> None:
    """No test that a promise stands on is skipped, or expected to fail."""
    tests = {name for _, attacked_by in promises() for name in named(attacked_by)}
    left_out = {"skip", "skipif", "importorskip", "xfail"}

    assert {name for name in tests if words(NAMES[name]) & left_out} == set()
    modules = {path: path.read_text(encoding="utf-8") for path, known in CODE.items() if tests & _names(known)}
    assert {path for path, text in modules.items() if re.search(r"^pytest(mark|\.)", text, re.MULTILINE)} == set()


def test_what_attacks_a_promise_checks_something() -> None:
    """By itself, or with a function of the tests that can fail."""
    tests = {name for _, attacked_by in promises() for name in named(attacked_by)}

    assert {name for name in tests if not fails(NAMES[name]) and not words(NAMES[name]) & CHECKING} == set()
