"""docs/doctor.md has each of the doctor's findings in a table, and no other."""

import ast
import re
from collections.abc import Iterator

from tests.support.broker import ROOT

MAKERS = {"ok", "problem", "unknown", "judge", "unreadable", "Server", "_clock"}
"""What takes the id of a finding first."""
CODE = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "broker" / "cli" / "doctor").glob("*.py")]
ROWS = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8"), re.MULTILINE)
DOCUMENTED = {identity for row in ROWS for identity in re.findall(r"`(\w+\.[\w.-]+)`", row)}


def _expressions() -> Iterator[ast.expr]:
    """Yield what is given as an id, or kept as one: ``identity``, by itself or beside other names."""
    for node in (node for module in CODE for node in ast.walk(module)):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in MAKERS:
                yield first
            case ast.Assign(targets=[ast.Name(id="identity" | "IDENTITY")], value=value):
                yield value
            case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="identity"), *_])], value=ast.Tuple(elts=[first, *_])):
                yield first


def _pattern(expression: ast.expr) -> str:
    """Return which ids a text can be, as a regular expression; an empty one for what is no text."""
    match expression:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(_pattern(part) or "[^.]+" for part in parts)
    return ""


PATTERNS = {pattern for expression in _expressions() if (pattern := _pattern(expression))}


def _is(pattern: str, identity: str) -> bool:
    return re.fullmatch(pattern, identity) is not None


def test_every_finding_is_documented() -> None:
    """By its id, or by one like it."""
    assert len(PATTERNS) > 30
    assert [pattern for pattern in PATTERNS if not any(_is(pattern, it) for it in DOCUMENTED)] == []


def test_every_documented_finding_exists() -> None:
    """What scripts look for is there."""
    assert [it for it in DOCUMENTED if not any(_is(pattern, it) for pattern in PATTERNS)] == []
