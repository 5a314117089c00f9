"""POST /oauth2/token: a token for programs that speak OAuth 2.0 already (RFC 6749, RFC 7523, RFC 8693).

``scope`` names the grant, ``audience`` or ``resource`` (RFC 8707) the audience; the TTL is the grant's default.
"""

import time
from collections.abc import Callable, Mapping

import orjson
from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.http.body import read_form
from broker.http.callers import Callers
from broker.http.json_answer import HEADERS
from broker.http.oauth_errors import ABOUT_THE_PROOF, GrantError
from broker.http.oauth_proofs import DEFAULT_ISSUED_TYPE, TOKEN_EXCHANGE, Claimed, proof_of_grant
from broker.http.router import REQUEST_ID
from broker.http.tokens import AnswerMetrics
from broker.model.audit_record import Origin
from broker.model.decision import Ask
from broker.ports import Clock
from broker.services.authenticate import Caller
from broker.services.issue import Issuer
from broker.services.mint import Issued


class OauthEndpoint:
    """Answers POST /oauth2/token."""

    def __init__(
        self,
        *,
        callers: Callers,
        issuer: Issuer,
        clock: Clock,
        metrics: AnswerMetrics,
        new_request_id: Callable[[], str],
    ) -> None:
        self._callers = callers
        self._issuer = issuer
        self._clock = clock
        self._metrics = metrics
        self._new_request_id = new_request_id

    async def post(self, request: web.BaseRequest) -> web.Response:
        """Read the form, which may hold the credentials, authenticate, and hand out."""
        started = time.perf_counter()
        self._metrics.arrived()
        request[REQUEST_ID] = request_id = self._new_request_id()
        try:
            form = await read_form(request, self._callers.body_timeout_seconds)
            remote = self._callers.remote(request)
            caller = await self._proved(request, proof_of_grant(request, form), form, remote)
            issued = await self._issuer.issue(caller.client, asked(form), Origin(request_id, remote, caller.proved_by))
            left = (issued.token.expires_at - self._clock.now()).total_seconds()
            return _granted(issued, int(left), form)
        finally:
            self._metrics.answered(time.perf_counter() - started)

    async def _proved(self, request: web.BaseRequest, claimed: Claimed, form: Mapping[str, str], remote: str) -> Caller:
        try:
            return await self._callers.prove(request, claimed.proof, remote, form.get("client_id", ""))
        except BrokerError as error:
            if claimed.grant_error is not None and error.reason in ABOUT_THE_PROOF:
                raise GrantError(error, claimed.grant_error) from None
            raise


def _granted(issued: Issued, seconds: int, form: Mapping[str, str]) -> web.Response:
    document = {
        "access_token": issued.token.value.reveal(),
        "token_type": "Bearer",
        "expires_in": seconds,
        "scope": issued.allowed.grant.name,
    }
    if form["grant_type"] == TOKEN_EXCHANGE:
        document["issued_token_type"] = form.get("requested_token_type", DEFAULT_ISSUED_TYPE)
    # RFC 6749, 5.1 wants both of the headers against caches.
    return web.Response(body=orjson.dumps(document), headers={**HEADERS, "Pragma": "no-cache"})


def asked(form: Mapping[str, str]) -> Ask:
    """Return what a form asks for. Raises BrokerError; parameters that are not known are ignored."""
    targets = {form[name] for name in ("audience", "resource") if name in form}
    if len(targets) > 1:
        raise BrokerError(Reason.AUDIENCE_NOT_ALLOWED, "A token has one audience: audience and resource differ.")
    if " " in form.get("scope", ""):
        raise BrokerError(Reason.GRANT_UNKNOWN, "A token is for one grant: name one in scope.")
    return Ask(form.get("scope"), None, next(iter(targets), None))
