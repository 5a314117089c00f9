"""The audit log: one JSON line for each token handed out and for each request that got none.

A line is handed to the kernel before the caller gets its token. The token itself is never in it: its SHA-256
and its ``jti``, which is ``authentication.kubernetes.io/issued-credential-id`` in the API server's own audit log.
"""

import os
import select
import stat
from pathlib import Path
from typing import Any, Protocol, Self

import orjson
import structlog

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Issuance, Origin, RefusedRequest, Revoked
from broker.model.client import DNS_LABEL
from broker.tracing import noted

log = structlog.get_logger(__name__)

STDOUT = 1
WRITABLE_WITHIN_MS = 100
"""How long a pipe that nobody empties may hold up the broker, once: what comes then is refused without a wait."""

MAX_SUBJECT_CHARACTERS = 256
"""How much of what an issuer calls the caller is written down; it must leave room for the rest of the line."""

MAX_LINE_BYTES = select.PIPE_BUF
"""A pipe that is writable takes this much in one piece, so that lines never mix and a write never blocks."""


_AS_KUBERNETES = orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS
"""Writes times as :func:`broker.model.times.timestamp` does."""


class AuditMetrics(Protocol):
    """What is told about audit records."""

    def audit_failed(self) -> None:
        """Count a record that could not be written."""


class AuditFile:
    """Appends records to a file, or to standard output for ``-``; implements :class:`broker.ports.AuditLog`."""

    def __init__(self, file: str, metrics: AuditMetrics) -> None:
        self._metrics = metrics
        self._owned = file != "-"
        self._torn = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(Path(file), flags, 0o600) if self._owned else STDOUT
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._patience = WRITABLE_WITHIN_MS
        self._blocks = not stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._owned:
            os.close(self._descriptor)

    def issued(self, record: Issuance) -> None:
        """Write the record of a token. Raises BrokerError(audit_unavailable): then it must not be handed out."""
        line = {
            "event": "token.issued",
            "time": record.at,
            "request_id": record.origin.request_id,
            "client": str(record.client),
            "client_uid": record.client_uid,
            "grant": record.grant,
            "subject": record.subject,
            "audience": record.audience,
            "requested_seconds": record.requested_seconds,
            "granted_seconds": record.granted_seconds,
            "expires_at": record.expires_at,
            "id": record.id,
            "jti": record.jti,
            "token_sha256": record.token_sha256,
            "delivery": record.delivery,
            "reused": record.reused,
            **_caller(record.origin),
        }
        try:
            self._append(line)
        except OSError as error:
            self._metrics.audit_failed()
            raise BrokerError(
                Reason.AUDIT_UNAVAILABLE,
                "The broker cannot record what it issues, so it issues nothing.",
                operator_detail=f"The audit record cannot be written: {error.strerror or error}.",
                retry_after=5,
            ) from None

    def refused(self, record: RefusedRequest) -> None:
        """Write the record of a refusal if that is possible; failing is counted and logged."""
        line = {
            "event": "token.refused",
            "time": record.at,
            "request_id": record.origin.request_id,
            "client": str(record.client),
            # What cannot be a grant's name may be a secret in the wrong place.
            "grant": record.grant if DNS_LABEL.fullmatch(record.grant) else "",
            "reason": record.reason,
            **_caller(record.origin),
        }
        self._append_if_possible(line)

    def revoked(self, record: Revoked) -> None:
        """Write the record of tokens that were ended if that is possible; failing is counted and logged."""
        line = {
            "event": "token.revoked",
            "time": record.at,
            "request_id": record.origin.request_id,
            "client": str(record.client),
            "grant": record.grant,
            "id": record.id,
            "why": record.why,
            **_caller(record.origin),
        }
        self._append_if_possible(line)

    def _append_if_possible(self, line: dict[str, Any]) -> None:
        try:
            self._append(line)
        except OSError as error:
            self._metrics.audit_failed()
            log.warning("audit.failed", detail=error.strerror or str(error))

    def _append(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line, option=_AS_KUBERNETES) + b"\n"
        if self._torn:
            data = b"\n" + data
        if len(data) > MAX_LINE_BYTES:
            raise OSError(f"a record of {len(data)} bytes is longer than the {MAX_LINE_BYTES} that are written whole")
        if self._blocks:
            self._wait()
        written = os.write(self._descriptor, data)
        # A full disk may take half a line: what follows starts on a line of its own.
        self._torn = written != len(data)
        if self._torn:
            raise OSError("the record was cut short; is the disk full?")

    def _wait(self) -> None:
        """Wait until the pipe takes a record. Raises OSError where nobody empties it.

        Nothing else goes on meanwhile, not even answers to probes: so the wait is a single one.
        """
        writable = bool(self._poll.poll(self._patience))
        self._patience = WRITABLE_WITHIN_MS if writable else 0
        if not writable:
            raise OSError("nobody reads the audit log's pipe")


def _caller(origin: Origin) -> dict[str, str]:
    proved_by = origin.proved_by
    return {
        "remote": origin.remote,
        "proof": proved_by.method if proved_by else "",
        "proof_subject": proved_by.subject[:MAX_SUBJECT_CHARACTERS] if proved_by else "",
        **noted(),
    }
