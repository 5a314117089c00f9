"""What the broker's audit log says about one token: to whom it was issued, and whether the broker ended it. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.doctor.requests import Record, parsed
from broker.model.client import ClientId

_ISSUED, _REVOKED = "token.issued", "token.revoked"


@dataclass(frozen=True, slots=True)
class History:
    """The record of the issuing, and that of the end, of one token."""

    issued: Record | None = None
    ended: Record | None = None

    @property
    def client(self) -> ClientId | None:
        """Whose token it is."""
        return ClientId.parse(str(self.issued["client"])) if self.issued else None

    @property
    def grant(self) -> str:
        """By which grant it was issued."""
        return str(self.issued["grant"]) if self.issued else ""

    @property
    def end(self) -> str:
        """When and why the broker ended it, or nothing."""
        it = self.ended
        return f"{it['time']} the broker ended it ({it['why']}, request {it['request_id']})" if it else ""


def trace(lines: Iterable[str], jti: str) -> History:
    """Return what an audit log says about the token that the API server calls ``jti``."""
    issued = ended = None
    for line in lines:
        if jti in line:
            record = parsed(line)
            issued = record if (record.get("event"), record.get("jti")) == (_ISSUED, jti) else issued
        elif issued is not None and _REVOKED in line:
            record = parsed(line)
            ended = record if _ends(record, issued) else ended
    return History(issued, ended)


def _ends(record: Record, issued: Record) -> bool:
    """Tell whether a record is about that token, or about all of its grant."""
    same = all(record.get(name) == issued.get(name) for name in ("client", "grant"))
    return same and record.get("event") == _REVOKED and record.get("id") in {"", issued.get("id")}


def diagnose(history: History, mend: str) -> Iterator[Finding]:
    """Yield who got the token, and when it was ended."""
    issued = history.issued
    if issued is None:
        yield unknown("token.issued", "this audit log knows no such token: it is of another day or replica, or foreign")
        return
    whom = f"{issued['client']}, grant {issued['grant']}, at {issued['time']} (request {issued['request_id']})"
    yield ok("token.issued", f"the broker issued it to {whom}")
    if history.end:
        yield problem("token.ended", history.end, mend)
