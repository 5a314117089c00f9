"""What is checked after a fault is told when it does not hold."""

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import Registered, Tenant
from tests.support.chaos.invariants import Explained, gaps, left_of
from tests.support.chaos.ledger import NO_ANSWER, AuditTail, Call, Ledger
from tests.support.chaos.levels import MORE_DESCRIPTORS, MORE_MB, MORE_TASKS, Level
from tests.support.chaos.load import VaultApp
from tests.support.lab import Lab

BEFORE = Level(80.0, 20, 40)
TOPS = {"web grant": 1}


def token(jti: str, seconds: float = 600) -> str:
    """Return what looks like a token that is good for so long."""
    claims = json.dumps({"jti": jti, "exp": time.time() + seconds}).encode()
    return f"x.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.y"


def record(value: str) -> str:
    """Return the audit record of a token."""
    return json.dumps({"event": "token.issued", "token_sha256": hashlib.sha256(value.encode()).hexdigest()})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the audit log is."""
    return tmp_path / "audit.jsonl"


def tail(file: Path) -> AuditTail:
    """Return what follows a file."""
    followed = AuditTail()
    followed.follow(file)
    return followed


def test_records_are_read_as_they_come(file: Path) -> None:
    """A line that is not complete is no record yet; half a line that somebody has left is none at all."""
    audit = tail(file)
    absent = len(audit.of("a"))
    file.write_text(record("a") + "\n{half a line\n" + record("b")[:20])
    half = len(audit.of("a")), len(audit.of("b"))
    file.write_text(record("a") + "\n{half a line\n" + record("b") + "\n" + record("b") + "\n")

    assert (absent, half) == (0, (1, 0))
    assert len(audit.of("b")) == 2


def app(lab: Lab, file: Path) -> VaultApp:
    """Return an app that reads Vault."""
    return VaultApp("app", lab, Registered("shop/app", ""), Ledger(), tail(file))


@pytest.mark.parametrize(
    ("seen", "violation"),
    [
        ([(1, "a"), (2, "b"), (2, "b")], ""),
        ([(2, "b"), (1, "a")], "version 1 came after 2"),
        ([(1, "a"), (1, "b")], "version 1 was overwritten"),
        ([(1, "unrecorded")], "version 1 has 0 audit records"),
        ([(1, "twice")], "version 1 has 2 audit records"),
        ([(1, "expired")], "version 1 is there, and has expired"),
    ],
    ids=["well", "backwards", "overwritten", "unrecorded", "twice", "expired"],
)
def test_what_an_app_reads_is_judged(file: Path, seen: list[tuple[int, str]], violation: str) -> None:
    """Versions only go up, never change, have one record each, and are good."""
    tokens = {jti: token(jti, -1 if jti == "expired" else 600) for _, jti in seen}
    recorded = [jti for jti in tokens if jti != "unrecorded"] + ["twice"] * ("twice" in tokens)
    file.write_text("".join(record(tokens[jti]) + "\n" for jti in recorded))
    reading = app(None, file)  # type: ignore[arg-type]
    for version, jti in seen:
        reading._seen(version, tokens[jti])

    assert reading.ledger.violations == ([f"app: {violation}"] if violation else [])


def anchor(kind: str, name: str = "x", uid: str = "u") -> dict[str, Any]:
    """Return an anchor of the client web."""
    labels = {"tokenbroker.dev/client": "web", "tokenbroker.dev/anchor": kind}
    return {"metadata": {"labels": labels, "name": name, "uid": uid}}


FOUND = [anchor("grant"), anchor("bucket"), anchor("version", uid="v1"), anchor("token", "a-t01")]


@pytest.mark.parametrize(
    ("found", "unknown", "told"),
    [
        (FOUND, 0, ""),
        (FOUND[1:], 0, "at the top: {} instead of"),
        ([*FOUND, anchor("trial")], 0, "at the top"),
        ([*FOUND, anchor("version", uid="v2")], 0, "versions: ['x'] too many"),
        ([one for one in FOUND if one != FOUND[2]], 0, "['v1'] missing"),
        (FOUND[:3], 0, "tokens without an anchor: 01"),
        ([*FOUND, anchor("token", "a-t02")], 0, "anchors of no token: 02"),
        ([*FOUND, anchor("token", "a-t02")], 1, ""),
    ],
)
def test_anchors_are_explained_or_told(found: list[dict[str, Any]], unknown: int, told: str) -> None:
    """Each that is missing, and each that nothing explains; callers who got no answer may have left some."""
    unexplained = Explained(TOPS, frozenset({"v1"}), ["01"], unknown).unexplained(found)

    assert bool(unexplained) == bool(told)
    assert told in unexplained


@pytest.mark.parametrize(
    ("versions", "newest", "told"),
    [
        (range(1, 4), 3, ""),
        (range(3, 13), 12, ""),
        ([1, 3], 3, "versions [1, 3] of 3 are there"),
        (range(1, 3), 3, "versions [1, 2] of 3 are there"),
        (range(5, 8), 7, "versions [5, 6, 7] of 7 are there"),
    ],
)
def test_versions_that_are_missing_are_told(versions: list[int], newest: int, told: str) -> None:
    """Vault keeps ten: fewer are there only of a copy that never had more."""
    metadata = {str(number): {"destroyed": False, "deletion_time": ""} for number in versions}

    assert [*gaps(metadata, newest, set())] == ([told] if told else [])


def test_deleted_version_is_told() -> None:
    """Destroyed or only marked."""
    metadata = {"1": {"destroyed": True, "deletion_time": ""}, "2": {"destroyed": False, "deletion_time": "2026"}}

    assert [*gaps(metadata, 2, set())] == ["version 1 was deleted", "version 2 was deleted"]


@pytest.mark.parametrize(
    ("after", "back"),
    [
        (BEFORE, True),
        (Level(BEFORE.megabytes + MORE_MB + 1, 20, 40), False),
        (Level(80.0, BEFORE.descriptors + MORE_DESCRIPTORS + 1, 40), False),
        (Level(80.0, 20, BEFORE.tasks + MORE_TASKS + 1), False),
    ],
)
def test_level_is_back_or_not(after: Level, back: bool) -> None:  # noqa: FBT001 - what is expected
    """Each of the three counts."""
    assert after.back_at(BEFORE) is back


def test_ledger_tells_when_calls_ceased_to_fail() -> None:
    """The last failure counts, not the first success; calls of other kinds do not."""
    ledger = Ledger()
    outcomes = [(1.0, "200"), (4.0, NO_ANSWER), (11.0, "200"), (12.0, "503 x"), (13.0, "200")]
    ledger.calls = [Call("issue", at, at + 0.5, outcome) for at, outcome in outcomes]
    ledger.calls.append(Call("read", 20.0, 25.0, NO_ANSWER))

    assert ledger.healed("issue", 10.0) == 2.5
    assert ledger.healed("issue", 13.0) == 0.0
    assert ledger.outcomes("issue", 3.0, 12.0) == {NO_ANSWER: 1, "200": 1}
    assert ledger.good("issue", 11.0) == 2
    assert ledger.slowest("read", 0.0, 30.0) == 5.0


def test_what_must_not_have_happened_is_told_once() -> None:
    """So what comes after a check fails the next one, and not each that follows."""
    ledger = Ledger()
    ledger.forbid("early")
    first = ledger.taken_violations()
    ledger.forbid("late")

    assert (first, ledger.taken_violations(), ledger.taken_violations()) == (["early"], ["late"], [])


class Servers:
    """What an API server and a Vault say of a namespace, in the place of both."""

    def __init__(self, clients: list[str], copies: list[str], secrets: list[str]) -> None:
        self._items = {"tokenclients": clients, "secrets": secrets}
        self._copies = copies

    async def request(self, _method: str, path: str) -> tuple[int, dict[str, Any]]:
        """List objects."""
        kind = "secrets" if "/secrets" in path else "tokenclients"
        return 200, {"items": [{"metadata": {"name": name}} for name in self._items[kind]]}

    async def api(self, _method: str, _path: str) -> tuple[int, dict[str, Any]]:
        """List keys."""
        return (200, {"data": {"keys": self._copies}}) if self._copies else (404, {"errors": []})


@pytest.mark.parametrize(
    ("clients", "copies", "secrets", "told"),
    [
        ([], [], [], ""),
        (["web"], [], [], "TokenClients: web"),
        ([], ["app/"], [], "copies in Vault: app/"),
        ([], [], ["tokenbroker-anchor-x"], "anchors: tokenbroker-anchor-x"),
    ],
)
async def test_what_is_left_is_told(clients: list[str], copies: list[str], secrets: list[str], told: str) -> None:
    """A TokenClient that is kept by a finalizer, a copy in Vault and an anchor are each something left behind."""
    servers: Any = Servers(clients, copies, secrets)

    left = await left_of(Lab(servers, servers, servers), Tenant(servers, "gone"))

    assert left == told


@pytest.mark.parametrize("first", [2, 1])
def test_versions_count_anew_once_where_all_was_lost(file: Path, first: int) -> None:
    """What was lost is no violation, and what is wrong afterwards is one again."""
    reader = app(None, file)  # type: ignore[arg-type]
    old, new, other = (token(jti) for jti in ("a", "b", "c"))
    file.write_text("".join(record(value) + "\n" for value in (old, new, other)))
    reader._seen(first, old)
    reader.lose()
    reader._seen(first, old)  # it is there still
    reader._seen(1, new)
    before = reader.ledger.taken_violations()
    reader._seen(1, other)

    assert before == []
    assert reader.ledger.taken_violations() == ["app: version 1 was overwritten"]
