"""POST /oauth2/introspect: whether a token is still good, for its own client (RFC 7662)."""

from collections.abc import Callable

from aiohttp import web

from broker.http.callers import Callers
from broker.http.json_answer import JsonAnswer
from broker.http.router import REQUEST_ID
from broker.services.introspect import Introspected, Introspector


class IntrospectEndpoint:
    """Tells clients about their own tokens; anybody else's, and what is none, is not active."""

    def __init__(self, callers: Callers, introspector: Introspector, new_request_id: Callable[[], str]) -> None:
        self._callers = callers
        self._introspector = introspector
        self._new_request_id = new_request_id

    async def post(self, request: web.BaseRequest) -> web.Response:
        """Authenticate the client, and ask the API server about the token."""
        request[REQUEST_ID] = self._new_request_id()
        caller, token = await self._callers.with_token(request, self._callers.remote(request))
        found = await self._introspector.introspect(caller.client, token)
        return JsonAnswer({"active": False} if found is None else _active(found))


def _active(found: Introspected) -> dict[str, object]:
    return {
        "active": True,
        "scope": found.grant,
        "client_id": str(found.client),
        "token_type": "Bearer",
        "exp": found.token.expires_at,
        "iat": found.token.issued_at,
        "sub": found.token.subject,
        "aud": found.token.audience,
        "iss": found.token.issuer,
        "jti": found.token.jti,
    }
