"""Problem documents (RFC 9457): what a refusal looks like on the wire."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Protocol

import orjson
import structlog
from aiohttp import web
from multidict import istr

from broker.errors import BrokerError, Reason
from broker.http.json_answer import PLAIN
from broker.http.protocol import Malformed
from broker.http.router import REQUEST_ID, Handler
from broker.model.client import ClientId
from broker.model.trace import TraceContext
from broker.tracing import following, noted

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
TYPE_BASE = "https://tokenbroker.dev/errors/"
CHALLENGES = 'Basic realm="tokenbroker", charset="UTF-8", Bearer realm="tokenbroker"'
"""Both ways to prove oneself with a header, in one line (RFC 9110, 11.6.1)."""


TRACEPARENT = istr("traceparent")

STATUS: Mapping[Reason, int] = {
    Reason.INVALID_CLIENT: 401,
    Reason.CLIENT_SUSPENDED: 403,
    Reason.CLIENT_EXPIRED: 403,
    Reason.PROOF_CLAIMS_MISMATCH: 403,
    Reason.PROOF_ACCOUNT_REPLACED: 403,
    Reason.TOO_MANY_PROOFS: 429,
    Reason.GRANT_REQUIRED: 400,
    Reason.GRANT_UNKNOWN: 403,
    Reason.GRANT_FORBIDDEN: 403,
    Reason.AUDIENCE_NOT_ALLOWED: 403,
    Reason.TTL_OUT_OF_RANGE: 422,
    Reason.DELIVERY_NOT_CONFIGURED: 403,
    Reason.LIMITS_EXCEEDED: 403,
    Reason.ACCOUNT_TOO_STRONG: 403,
    Reason.ACCESS_NOT_AS_DECLARED: 403,
    Reason.NOT_INDIVIDUALLY_REVOCABLE: 409,
    Reason.TOO_MANY_TOKENS: 429,
    Reason.RATE_LIMITED: 429,
    Reason.INVALID_REQUEST: 400,
    Reason.GRANT_TYPE_UNSUPPORTED: 400,
    Reason.BODY_TOO_LARGE: 413,
    Reason.REQUEST_TIMEOUT: 408,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.ROUTE_UNKNOWN: 404,
    Reason.SERVICE_ACCOUNT_MISSING: 409,
    Reason.BROKER_NOT_AUTHORIZED: 503,
    Reason.ANCHOR_MISSING: 503,
    Reason.OVERLOADED: 503,
    Reason.KUBERNETES_UNAVAILABLE: 503,
    Reason.KUBERNETES_TIMEOUT: 504,
    Reason.KUBERNETES_REJECTED: 503,
    Reason.ISSUER_UNAVAILABLE: 503,
    Reason.REGISTRY_STALE: 503,
    Reason.POLICY_MISSING: 503,
    Reason.AUDIT_UNAVAILABLE: 503,
    Reason.VAULT_UNAVAILABLE: 503,
    Reason.VAULT_DENIED: 503,
    Reason.VAULT_PATH_TAKEN: 503,
    Reason.VAULT_WRITE_CONFLICT: 503,
    Reason.INTERNAL_ERROR: 500,
}

CLOSING = frozenset({Reason.BODY_TOO_LARGE, Reason.REQUEST_TIMEOUT})
"""What is left of these requests is not worth reading: the connection is closed after the answer."""

Respond = Callable[[BrokerError, str], web.Response]


class ProblemMetrics(Protocol):
    """What is told about problems."""

    def problem(self, reason: Reason) -> None:
        """Count a problem document that was sent."""


def problem_response(error: BrokerError, request_id: str) -> web.Response:
    """Return the answer for an error; the operator's wording stays behind."""
    response = web.Response(
        body=orjson.dumps(_document(error, request_id)),
        status=STATUS[error.reason],
        content_type=CONTENT_TYPE,
        headers=problem_headers(error),
    )
    if error.reason in CLOSING:
        response.force_close()
    return response


def _document(error: BrokerError, request_id: str) -> dict[str, object]:
    status = STATUS[error.reason]
    document: dict[str, object] = {
        "type": TYPE_BASE + error.reason,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.detail,
        "code": error.reason,
        "request_id": request_id,
    }
    if error.limits is not None:
        document["limits"] = asdict(error.limits)
    return document


def problem_headers(error: BrokerError) -> dict[str, str]:
    """Return the headers of the answer for an error, but for its content type."""
    headers = dict(PLAIN)
    if error.reason is Reason.INVALID_CLIENT:
        headers["WWW-Authenticate"] = CHALLENGES
    if error.allow:
        headers["Allow"] = error.allow
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return headers


def guarded(
    handler: Handler,
    request_id: Callable[[], str],
    metrics: ProblemMetrics,
    respond: Respond = problem_response,
) -> Handler:
    """Return a handler that answers every error in its own way, and never with a stack trace.

    It wraps handlers one by one because a middleware costs more on the hot path. A request that belongs to a trace
    is answered as a part of it.
    """

    def problem(request: web.BaseRequest, error: BrokerError) -> web.Response:
        known = request.get(REQUEST_ID) or request_id()
        _note(error, known, metrics, _caller(request))
        return respond(error, known)

    async def guard(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handler(request)
        except BrokerError as error:
            return problem(request, error)
        except ConnectionError:
            raise  # the caller went away: there is nobody to answer
        except Exception:
            log.exception("http.internal_error", path=request.path, **noted())
            return problem(request, BrokerError(Reason.INTERNAL_ERROR, "The broker met an error of its own."))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if TRACEPARENT not in request.headers:
            return await guard(request)
        with following(_trace(request)):
            return await guard(request)

    return answer


def _trace(request: web.BaseRequest) -> TraceContext | None:
    """Return what the one header says; two of them contradict each other."""
    said = request.headers.getall(TRACEPARENT)
    return TraceContext.parse(said[0]) if len(said) == 1 else None


def malformed(request_id: Callable[[], str], metrics: ProblemMetrics) -> Malformed:
    """Return what answers requests that are not HTTP; the connection is closed, for nobody knows where they end."""

    def answer(_request: web.BaseRequest, status: int) -> web.Response:
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            error = BrokerError(Reason.INTERNAL_ERROR, "The broker met an error of its own.")
        else:
            error = BrokerError(Reason.INVALID_REQUEST, "The request is not valid HTTP, or its headers are too large.")
        metrics.problem(error.reason)
        response = problem_response(error, request_id())
        response.force_close()
        return response

    return answer


def turned_away(
    request_id: Callable[[], str], metrics: ProblemMetrics, counted: Callable[[], None]
) -> Callable[[], bytes]:
    """Return what makes the whole answer for a caller beyond the last connection that there is room for."""

    def answer() -> bytes:
        counted()
        error = BrokerError(Reason.OVERLOADED, "The broker has more callers than it can serve.", retry_after=1)
        metrics.problem(error.reason)
        body = orjson.dumps(_document(error, request_id()))
        headers = problem_headers(error) | {
            "Content-Type": CONTENT_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            f"HTTP/1.1 {STATUS[error.reason]} {HTTPStatus(STATUS[error.reason]).phrase}\r\n{lines}\r\n".encode() + body
        )

    return answer


def _caller(request: web.BaseRequest) -> dict[str, str]:
    """Return who called, as far as it may be logged: a claim only where it can be the id of a client.

    So it is short, of letters, digits, dots and dashes, and no secret that somebody put in its place.
    """
    if "client" in request:
        return {"client": str(request["client"])}
    claimed = ClientId.parse(request.get("claimed_client", ""))
    return {"claimed_client": str(claimed)} if claimed is not None else {}


def _note(error: BrokerError, request_id: str, metrics: ProblemMetrics, caller: dict[str, str]) -> None:
    metrics.problem(error.reason)
    level = log.warning if STATUS[error.reason] >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
    said = {"reason": error.reason.value, "detail": error.operator_detail, **caller, **noted()}
    level("http.refused", request_id=request_id, **said)
