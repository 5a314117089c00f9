"""The routes of the API listener; everything else gets a problem document too."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.http.grants import GrantsEndpoint
from broker.http.introspect import IntrospectEndpoint
from broker.http.json_answer import PLAIN
from broker.http.metadata import MetadataEndpoint
from broker.http.oauth import OauthEndpoint
from broker.http.oauth_errors import oauth_error
from broker.http.problems import ProblemMetrics, Respond, guarded, problem_response
from broker.http.revoke import RevokeEndpoint
from broker.http.router import ANY, Handler, Router
from broker.http.tokens import TokensEndpoint


class Contract:
    """Answers GET /openapi.yaml."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def get(self, _request: web.BaseRequest) -> web.Response:
        """Answer with the API's description."""
        return web.Response(text=self._text, content_type="application/yaml", headers={"Server": PLAIN["Server"]})


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What answers on the API listener. ``metadata`` is None where the broker was not told its public URL."""

    tokens: TokensEndpoint
    grants: GrantsEndpoint
    oauth: OauthEndpoint
    introspect: IntrospectEndpoint
    revoke: RevokeEndpoint
    metadata: MetadataEndpoint | None
    contract: Contract


def api_router(endpoints: Endpoints, *, new_request_id: Callable[[], str], metrics: ProblemMetrics) -> Router:
    """Return what answers on the API listener."""
    router = Router(guarded(_route_unknown, new_request_id, metrics))

    def route(method: str, path: str, handler: Handler, respond: Respond = problem_response) -> None:
        router.add(method, path, guarded(handler, new_request_id, metrics, respond))
        router.add(ANY, path, guarded(_method_not_allowed(method), new_request_id, metrics, respond))

    route("POST", "/v1/tokens", endpoints.tokens.post)
    route("DELETE", "/v1/tokens/{last}", endpoints.revoke.delete)
    route("GET", "/v1/grants", endpoints.grants.get)
    route("GET", "/openapi.yaml", endpoints.contract.get)
    route("POST", "/oauth2/token", endpoints.oauth.post, oauth_error)
    route("POST", "/oauth2/introspect", endpoints.introspect.post, oauth_error)
    route("POST", "/oauth2/revoke", endpoints.revoke.post, oauth_error)
    if endpoints.metadata is not None:
        route("GET", "/.well-known/oauth-authorization-server", endpoints.metadata.get)
    return router


def _method_not_allowed(allowed: str) -> Handler:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        raise BrokerError(Reason.METHOD_NOT_ALLOWED, f"This address answers {allowed} only.", allow=allowed)

    return refuse


async def _route_unknown(_request: web.BaseRequest) -> web.StreamResponse:
    raise BrokerError(Reason.ROUTE_UNKNOWN, "There is nothing at this address; /openapi.yaml lists what there is.")
