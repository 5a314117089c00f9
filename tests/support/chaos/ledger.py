"""What callers and readers saw, call by call, and what must never have happened."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_ANSWER = "no answer"
"""The outcome of a call that was refused a connection, cut off, or given up by its caller."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is over. Times are the event loop's; ``outcome`` is ``200``, or status and code, or NO_ANSWER."""

    what: str
    began: float
    ended: float
    outcome: str

    @property
    def good(self) -> bool:
        """Tell whether it got what it asked for."""
        return self.outcome == "200"


@dataclass(slots=True)
class Ledger:
    """All calls in the order in which they ended, and what went wrong for good."""

    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def note(self, what: str, began: float, outcome: str) -> None:
        """Keep a call that ends now."""
        self.calls.append(Call(what, began, asyncio.get_running_loop().time(), outcome))

    def forbid(self, violation: str) -> None:
        """Keep what must not happen; the scene fails with it."""
        self.violations.append(violation)

    def taken_violations(self) -> list[str]:
        """Return what must not have happened since this was asked last."""
        taken, self.violations = self.violations, []
        return taken

    def good(self, what: str, since: float = 0.0) -> int:
        """Return how many calls of a kind began after a time and went well."""
        return sum(call.what == what and call.good and call.began >= since for call in self.calls)

    def outcomes(self, what: str, since: float, until: float) -> Counter[str]:
        """Return how calls of a kind ended that began within a time."""
        return Counter(call.outcome for call in self.calls if call.what == what and since <= call.began < until)

    def slowest(self, what: str, since: float, until: float) -> float:
        """Return the longest time, in seconds, that a call of a kind took which began within a time."""
        return max((c.ended - c.began for c in self.calls if c.what == what and since <= c.began < until), default=0.0)

    def healed(self, what: str, since: float) -> float:
        """Return the seconds from a time until a call of a kind failed for the last time; 0.0 where none did."""
        failures = [call.ended for call in self.calls if call.what == what and not call.good]
        return max([0.0, *(ended - since for ended in failures)])


class AuditTail:
    """The records of tokens in some audit files, read as they grow."""

    def __init__(self) -> None:
        self.issued: dict[str, list[dict[str, Any]]] = {}
        """By the token's SHA-256, in hexadecimal digits."""
        self._read: dict[Path, int] = {}

    def follow(self, file: Path) -> None:
        """Read this file, too; it need not be there yet."""
        self._read.setdefault(file, 0)

    def of(self, token: str) -> list[dict[str, Any]]:
        """Return the records of a token that are there now."""
        self.refresh()
        return self.issued.get(hashlib.sha256(token.encode()).hexdigest(), [])

    def refresh(self) -> None:
        """Read what came since."""
        for file in self._read:
            for record in self._fresh(file):
                if record.get("event") == "token.issued":
                    self.issued.setdefault(record["token_sha256"], []).append(record)

    def _fresh(self, file: Path) -> Iterator[dict[str, Any]]:
        if not file.exists():
            return
        with file.open("rb") as lines:
            lines.seek(self._read[file])
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._read[file] += len(line)
                if record := _record(line):
                    yield record


def _record(line: bytes) -> dict[str, Any] | None:
    """Return a record, or None for half a line that a full disk or a killed process has left."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
