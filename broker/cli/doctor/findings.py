"""What a check found: one line, and for a problem the command that mends it. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

_STATE_WIDTH = 12
_ID_WIDTH = 24


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    PROBLEM = "problem"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. ``id`` is stable, for scripts; ``mend`` is a command, or what has to be written where."""

    id: str
    state: State
    text: str
    mend: str = ""


def ok(identity: str, text: str) -> Finding:
    """Return that nothing is wrong."""
    return Finding(identity, State.OK, text)


def problem(identity: str, text: str, mend: str) -> Finding:
    """Return what is wrong, and the line that mends it."""
    return Finding(identity, State.PROBLEM, text, mend)


def unknown(identity: str, text: str, mend: str = "") -> Finding:
    """Return that it cannot be told, why not, and what would help."""
    return Finding(identity, State.UNKNOWN, text, mend)


def worst(findings: Iterable[Finding]) -> State:
    """Return PROBLEM where one was found, else OK: what cannot be told is no problem that was found."""
    return State.PROBLEM if any(it.state is State.PROBLEM for it in findings) else State.OK


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield what people read."""
    for it in findings:
        yield f"{it.state:<{_STATE_WIDTH}} {it.id:<{_ID_WIDTH}} {it.text}"
        if it.mend:
            yield from (f"{'':<{_STATE_WIDTH}}   {line}" for line in it.mend.splitlines())


def document(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return what programs read."""
    found = list(findings)
    return {"problems": worst(found) is State.PROBLEM, "findings": [asdict(it) for it in found]}
