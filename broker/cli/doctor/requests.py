"""What became of one request, from the broker's audit log and its log. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.doctor.meanings import Meaning
from broker.model.client import ClientId

Record = Mapping[str, Any]
_ELSEWHERE = "kubectl logs -n tokenbroker deployment/tokenbroker --since=24h | tokenbroker doctor … --audit-log -"


@dataclass(frozen=True, slots=True)
class Request:
    """The lines about one request; the audit log's record is the one with ``client``."""

    id: str
    records: tuple[Record, ...]

    @property
    def client(self) -> ClientId | None:
        """Whose request it was, where the audit log says so."""
        return next((ClientId.parse(str(it["client"])) for it in self.records if it.get("client")), None)

    @property
    def grant(self) -> str:
        """Which grant was asked for, or nothing."""
        return next((str(it["grant"]) for it in self.records if it.get("grant")), "")


def find(lines: Iterable[str], name: str, value: str) -> tuple[Record, ...]:
    """Return the JSON lines in which a field has a value; ``kubectl logs --prefix`` may stand before them."""
    records = (parsed(line) for line in lines if value in line)
    return tuple(it for it in records if it.get(name) == value)


def parsed(line: str) -> Record:
    """Return a JSON line, or nothing where it is none."""
    try:
        document = json.loads(line[line.index("{") :])
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def diagnose(request: Request, meanings: Mapping[str, Meaning]) -> Iterator[Finding]:
    """Yield what was answered, and what that means."""
    if not request.records:
        text = f"no line of the log is about {request.id}: it is of another replica or day, or was answered by a proxy"
        yield unknown("request.found", text, _ELSEWHERE)
    for it in request.records:
        yield _judged(it, meanings)


def _judged(record: Record, meanings: Mapping[str, Meaning]) -> Finding:
    identity, reason = f"request.{record.get('event', 'line')}", str(record.get("reason", ""))
    told = f"{record.get('time') or record.get('timestamp', '')} {_said(record)}"
    if not reason:
        return ok(identity, told)
    meaning = meanings.get(reason)
    if meaning is None:
        return problem(identity, f"{told}: {reason}, which this release does not know", "use the broker's own release")
    return problem(identity, f"{told}: {reason}. {meaning.text}", meaning.mend)


def _said(record: Record) -> str:
    names = ("client", "grant", "audience", "expires_at", "jti", "proof", "remote", "detail")
    return ", ".join(f"{name} {record[name]}" for name in names if record.get(name))
