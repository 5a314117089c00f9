"""A broker's refusal (RFC 9457) as one sentence and an exit code. Pure."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from broker.cli.errors import CommandError, ExitCode
from broker.model.duration import format_duration

_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def explain(status: int, problem: dict[str, Any], retry_after: str | None) -> CommandError:
    """Return the error for an answer without a token; ``problem`` is empty where it was no JSON object."""
    detail = problem.get("detail")
    if not isinstance(detail, str):
        return CommandError(f"what answered is not a token broker (HTTP {status}): check the URL.", _code(status))
    parts = [detail, *_limits(problem.get("limits"))]
    wait = int(retry_after) if retry_after and retry_after.isdecimal() else 0
    if wait:
        parts.append(f"Try again in {wait} s.")
    reference = ", ".join(f"{name} {problem[key]}" for key, name in _REFERENCES.items() if key in problem)
    return CommandError(f"{' '.join(parts)} ({reference})", _code(status), wait)


def problem(document: dict[str, Any]) -> dict[str, Any]:
    """Return an error of OAuth 2.0 (RFC 6749, 5.2) as a problem; a problem stays what it is."""
    said = {"code": document.get("error"), "detail": document.get("error_description")}
    return document | {key: value for key, value in said.items() if isinstance(value, str)}


_REFERENCES = {"code": "code", "request_id": "request"}


def _code(status: int) -> ExitCode:
    if status == HTTPStatus.UNAUTHORIZED:
        return ExitCode.UNAUTHENTICATED
    if status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ExitCode.UNAVAILABLE
    return ExitCode.REFUSED


def _limits(limits: Any) -> Iterator[str]:
    if not isinstance(limits, dict):
        return
    shortest, longest = limits.get("min_ttl_seconds"), limits.get("max_ttl_seconds")
    if isinstance(shortest, int) and isinstance(longest, int):
        yield f"TTLs from {format_duration(shortest)} to {format_duration(longest)} are allowed."
    audiences = limits.get("audiences")
    if isinstance(audiences, list) and audiences:
        yield f"Audiences: {', '.join(map(str, audiences))}."
