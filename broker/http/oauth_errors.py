"""Errors as OAuth 2.0 has them (RFC 6749, 5.2), with the broker's own code beside them."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.http.json_answer import HEADERS
from broker.http.problems import CLOSING, STATUS, problem_headers

ERRORS: Mapping[Reason, str] = {
    Reason.INVALID_CLIENT: "invalid_client",
    Reason.CLIENT_SUSPENDED: "unauthorized_client",
    Reason.CLIENT_EXPIRED: "unauthorized_client",
    Reason.GRANT_REQUIRED: "invalid_scope",
    Reason.GRANT_UNKNOWN: "invalid_scope",
    Reason.GRANT_FORBIDDEN: "invalid_scope",
    Reason.LIMITS_EXCEEDED: "invalid_scope",
    Reason.ACCOUNT_TOO_STRONG: "invalid_scope",
    Reason.ACCESS_NOT_AS_DECLARED: "invalid_scope",
    Reason.NOT_INDIVIDUALLY_REVOCABLE: "unsupported_token_type",
    Reason.AUDIENCE_NOT_ALLOWED: "invalid_target",
    Reason.GRANT_TYPE_UNSUPPORTED: "unsupported_grant_type",
    Reason.PROOF_CLAIMS_MISMATCH: "invalid_client",
    Reason.PROOF_ACCOUNT_REPLACED: "invalid_client",
}
"""RFC 6749, 5.2, RFC 7009, 2.2.1 and RFC 8707, 2; whatever else is wrong with a request is ``invalid_request``."""

ABOUT_THE_PROOF = frozenset({Reason.INVALID_CLIENT, Reason.PROOF_CLAIMS_MISMATCH, Reason.PROOF_ACCOUNT_REPLACED})

KEPT = frozenset({401, 405, 408, 413, 429})
"""Statuses that say more than the 400 which the RFC has for the rest."""

_PLAINER = str.maketrans({'"': "'", "\\": "/"})
"""A description may hold neither (RFC 6749, 5.2)."""


class GrantError(BrokerError):
    """A proof failed that was the grant itself, for which OAuth has other words than for a client's credentials."""

    def __init__(self, cause: BrokerError, error: str) -> None:
        super().__init__(cause.reason, cause.detail, operator_detail=cause.operator_detail)
        self.error = error


def oauth_error(error: BrokerError, request_id: str) -> web.Response:
    """Return the answer for an error as RFC 6749, 5.2 has it, with the broker's own code beside it."""
    status = STATUS[error.reason]
    of_grant = isinstance(error, GrantError)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and (of_grant or status not in KEPT):
        status = HTTPStatus.BAD_REQUEST
    later = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    other = "temporarily_unavailable" if later else "invalid_request"
    document = {
        "error": error.error if isinstance(error, GrantError) else ERRORS.get(error.reason, other),
        "error_description": error.detail.translate(_PLAINER),
        "code": error.reason,
        "request_id": request_id,
    }
    headers = {**HEADERS, **problem_headers(error)}
    if status != HTTPStatus.UNAUTHORIZED:
        headers.pop("WWW-Authenticate", None)
    response = web.Response(body=orjson.dumps(document), status=status, headers=headers)
    if error.reason in CLOSING:
        response.force_close()
    return response
