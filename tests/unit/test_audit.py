"""What the audit log cannot write is refused soon, also where nobody empties a pipe, and harms no other record."""

import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.audit import WRITABLE_WITHIN_MS, AuditFile
from broker.errors import BrokerError, Reason
from broker.model.audit_record import Issuance, Origin
from broker.model.client import ClientId

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ISSUED = Issuance(
    at=NOON,
    origin=Origin("r-1"),
    client=ClientId("shop", "reporter"),
    client_uid="uid-1",
    grant="default",
    subject="system:serviceaccount:shop:reporter",
    audience="api",
    requested_seconds=900,
    granted_seconds=900,
    expires_at=NOON,
    id="id-1",
    jti="jti-1",
    token_sha256="0" * 64,
    delivery="http",
)


class Counted:
    """Implements AuditMetrics."""

    failures = 0

    def audit_failed(self) -> None:
        """Count."""
        self.failures += 1


@contextmanager
def standard_output() -> Iterator[int]:
    """Let standard output be a pipe that nobody reads from, and return its other end."""
    kept, (reading, writing) = os.dup(1), os.pipe()
    os.dup2(writing, 1)
    try:
        yield reading
    finally:
        os.dup2(kept, 1)
        for one in (kept, reading, writing):
            os.close(one)


def _fill() -> None:
    os.set_blocking(1, False)
    with suppress(BlockingIOError):
        for _ in range(1000):
            os.write(1, b"\n" * 4096)
    os.set_blocking(1, True)


def _refused(audit: AuditFile) -> float:
    started = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        audit.issued(ISSUED)
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    return time.monotonic() - started


def test_a_pipe_that_nobody_empties_holds_the_broker_up_once() -> None:
    """Then everything is refused without a wait, until the pipe is emptied, and written again at once."""
    with standard_output() as reading, AuditFile("-", counted := Counted()) as audit:
        audit.issued(ISSUED)
        _fill()
        first = _refused(audit)
        rest = sum(_refused(audit) for _ in range(50))
        os.read(reading, 1 << 20)
        audit.issued(ISSUED)
        written = os.read(reading, 1 << 20)
        _fill()
        again = _refused(audit)

    assert first >= WRITABLE_WITHIN_MS / 1000 * 0.9
    assert rest < WRITABLE_WITHIN_MS / 1000 * 10
    assert again >= WRITABLE_WITHIN_MS / 1000 * 0.9
    assert json.loads(written)["jti"] == "jti-1"
    assert counted.failures == 52


def test_a_record_that_was_cut_short_takes_no_other_along(tmp_path: Path) -> None:
    """A file that may grow no further, as on a full disk, has half of it: the next one stands on a line of its own."""
    file, (soft, hard) = tmp_path / "audit.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    with AuditFile(str(file), Counted()) as audit:
        audit.issued(ISSUED)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 20, hard))
        try:
            _refused(audit)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        audit.issued(ISSUED)
    first, cut, last = file.read_text().splitlines()

    assert json.loads(first) == json.loads(last)
    assert len(cut) == 20
