"""POST /oauth2/token: a token for programs that speak OAuth 2.0 already (RFC 6749, client credentials grant).

``scope`` names the grant, ``audience`` or ``resource`` (RFC 8707) the audience; the TTL is the grant's default.
"""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

import orjson
from aiohttp import web

from broker.errors import BrokerError, ProofFailure, Reason
from broker.http.body import read_form
from broker.http.credentials import read_basic
from broker.http.problems import CLOSING, PLAIN, STATUS, problem_headers
from broker.http.tokens import AnswerMetrics
from broker.model.client import Client
from broker.model.decision import Ask
from broker.ports import Clock
from broker.services.authenticate import Authenticator
from broker.services.issue import Issued, Issuer, Origin

CLIENT_CREDENTIALS = "client_credentials"

ERRORS: Mapping[Reason, str] = {
    Reason.INVALID_CLIENT: "invalid_client",
    Reason.CLIENT_SUSPENDED: "unauthorized_client",
    Reason.CLIENT_EXPIRED: "unauthorized_client",
    Reason.GRANT_REQUIRED: "invalid_scope",
    Reason.GRANT_UNKNOWN: "invalid_scope",
    Reason.GRANT_FORBIDDEN: "invalid_scope",
    Reason.AUDIENCE_NOT_ALLOWED: "invalid_target",
    Reason.GRANT_TYPE_UNSUPPORTED: "unsupported_grant_type",
}
"""RFC 6749, 5.2 and RFC 8707, 2; whatever else is wrong with a request is ``invalid_request``."""

KEPT = frozenset({401, 405, 408, 413})
"""Statuses that say more than the 400 which the RFC has for the rest."""

JSON = {"Content-Type": "application/json"}
_PLAINER = str.maketrans({'"': "'", "\\": "/"})
"""A description may hold neither (RFC 6749, 5.2)."""


class OauthEndpoint:
    """Answers POST /oauth2/token."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        issuer: Issuer,
        clock: Clock,
        metrics: AnswerMetrics,
        new_request_id: Callable[[], str],
        body_timeout_seconds: float,
    ) -> None:
        self._authenticator = authenticator
        self._issuer = issuer
        self._clock = clock
        self._metrics = metrics
        self._new_request_id = new_request_id
        self._body_timeout = body_timeout_seconds

    async def post(self, request: web.Request) -> web.Response:
        """Read the form, which may hold the credentials, authenticate, and hand out."""
        started = time.perf_counter()
        self._metrics.arrived()
        request["request_id"] = request_id = self._new_request_id()
        try:
            form = await read_form(request, self._body_timeout)
            client = self._authenticated(request, form)
            origin = Origin(request_id, request.remote or "")
            issued = await self._issuer.issue(client, asked(form), origin)
            left = (issued.token.expires_at - self._clock.now()).total_seconds()
            return _granted(issued, int(left))
        finally:
            self._metrics.answered(time.perf_counter() - started)

    def _authenticated(self, request: web.Request, form: Mapping[str, str]) -> Client:
        headers = request.headers.getall("Authorization", ())
        if "client_secret" in form:
            if headers:
                raise BrokerError(Reason.INVALID_REQUEST, "Send the credentials once: as HTTP Basic or in the form.")
            return self._authenticator.authenticate(form.get("client_id", ""), form["client_secret"])
        proof = read_basic(headers)
        if isinstance(proof, ProofFailure):
            raise self._authenticator.failed(proof)
        if form.get("client_id", proof[0]) != proof[0]:
            raise BrokerError(Reason.INVALID_REQUEST, "The client_id is not the Authorization header's.")
        return self._authenticator.authenticate(*proof)


def _granted(issued: Issued, seconds: int) -> web.Response:
    document = {
        "access_token": issued.token.value.reveal(),
        "token_type": "Bearer",
        "expires_in": seconds,
        "scope": issued.allowed.grant.name,
    }
    # RFC 6749, 5.1 wants both of the headers against caches.
    return web.Response(body=orjson.dumps(document), headers={**JSON, **PLAIN, "Pragma": "no-cache"})


def asked(form: Mapping[str, str]) -> Ask:
    """Return the request that a form stands for. Raises BrokerError; parameters that are not known are ignored."""
    if "grant_type" not in form:
        raise BrokerError(Reason.INVALID_REQUEST, "The parameter 'grant_type' is missing.")
    if form["grant_type"] != CLIENT_CREDENTIALS:
        raise BrokerError(Reason.GRANT_TYPE_UNSUPPORTED, f"The only grant_type here is {CLIENT_CREDENTIALS}.")
    targets = {form[name] for name in ("audience", "resource") if name in form}
    if len(targets) > 1:
        raise BrokerError(Reason.AUDIENCE_NOT_ALLOWED, "A token has one audience: audience and resource differ.")
    if " " in form.get("scope", ""):
        raise BrokerError(Reason.GRANT_UNKNOWN, "A token is for one grant: name one in scope.")
    return Ask(form.get("scope"), None, next(iter(targets), None))


def oauth_error(error: BrokerError, request_id: str) -> web.Response:
    """Return the answer for an error as RFC 6749, 5.2 has it, with the broker's own code beside it."""
    status = STATUS[error.reason]
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in KEPT:
        status = HTTPStatus.BAD_REQUEST
    other = "invalid_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "temporarily_unavailable"
    document = {
        "error": ERRORS.get(error.reason, other),
        "error_description": error.detail.translate(_PLAINER),
        "code": error.reason,
        "request_id": request_id,
    }
    response = web.Response(body=orjson.dumps(document), status=status, headers=JSON | problem_headers(error))
    if error.reason in CLOSING:
        response.force_close()
    return response
