"""DELETE /v1/tokens/{id} and POST /oauth2/revoke (RFC 7009): a client ends a token of its own."""

from collections.abc import Callable

from aiohttp import web

from broker.http.callers import Callers
from broker.http.json_answer import PLAIN
from broker.http.router import REQUEST_ID, last_segment
from broker.model.audit_record import Origin
from broker.services.revoke import Revoker


class RevokeEndpoint:
    """Answers alike whether there was such a token or not: nobody learns which ids exist."""

    def __init__(self, callers: Callers, revoker: Revoker, new_request_id: Callable[[], str]) -> None:
        self._callers = callers
        self._revoker = revoker
        self._new_request_id = new_request_id

    async def delete(self, request: web.BaseRequest) -> web.Response:
        """End the token of the id in the path."""
        request[REQUEST_ID] = request_id = self._new_request_id()
        remote = self._callers.remote(request)
        caller = await self._callers.with_query(request, remote)
        origin = Origin(request_id, remote, caller.proved_by)
        await self._revoker.by_id(caller.client, last_segment(request), origin)
        return web.Response(status=204, headers=PLAIN)

    async def post(self, request: web.BaseRequest) -> web.Response:
        """End the token in the form; one that is not the client's, or not good any more, is none (RFC 7009, 2.2)."""
        request[REQUEST_ID] = request_id = self._new_request_id()
        remote = self._callers.remote(request)
        caller, token = await self._callers.with_token(request, remote)
        await self._revoker.by_token(caller.client, token, Origin(request_id, remote, caller.proved_by))
        return web.Response(status=200, headers=PLAIN)
