"""The routes of the API listener; everything else gets a problem document too."""

from collections.abc import Callable, Mapping

from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.http.grants import GrantsEndpoint
from broker.http.oauth import OauthEndpoint, oauth_error
from broker.http.problems import PLAIN, Handler, ProblemMetrics, guarded
from broker.http.tokens import TokensEndpoint


class Contract:
    """Answers GET /openapi.yaml."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def get(self, _request: web.Request) -> web.Response:
        """Answer with the API's description."""
        return web.Response(text=self._text, content_type="application/yaml", headers={"Server": PLAIN["Server"]})


def api_app(
    tokens: TokensEndpoint,
    grants: GrantsEndpoint,
    contract: Contract,
    oauth: OauthEndpoint,
    *,
    new_request_id: Callable[[], str],
    metrics: ProblemMetrics,
) -> web.Application:
    """Return the API listener's application."""
    routes: Mapping[str, Mapping[str, Handler]] = {
        "/v1/tokens": {"POST": tokens.post},
        "/v1/grants": {"GET": grants.get},
        "/openapi.yaml": {"GET": contract.get},
    }
    app = web.Application(client_max_size=0)
    _add(app, "POST", "/oauth2/token", guarded(oauth.post, new_request_id, metrics, oauth_error))
    _add(app, "*", "/oauth2/token", guarded(_method_not_allowed(("POST",)), new_request_id, metrics, oauth_error))
    for path, methods in routes.items():
        for method, handler in methods.items():
            _add(app, method, path, guarded(handler, new_request_id, metrics))
        _add(app, "*", path, guarded(_method_not_allowed(tuple(methods)), new_request_id, metrics))
    _add(app, "*", "/{path:.*}", guarded(_route_unknown, new_request_id, metrics))
    return app


def _add(app: web.Application, method: str, path: str, handler: Handler) -> None:
    app.router.add_route(method, path, handler, expect_handler=_continue)


async def _continue(request: web.Request) -> None:
    """Let the body come; an expectation that is not known is ignored, which RFC 9110, 10.1.1 allows."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # no part of the answer yet


def _method_not_allowed(methods: tuple[str, ...]) -> Handler:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        allowed = ", ".join(methods)
        raise BrokerError(Reason.METHOD_NOT_ALLOWED, f"This address answers {allowed} only.", allow=allowed)

    return refuse


async def _route_unknown(_request: web.Request) -> web.StreamResponse:
    raise BrokerError(Reason.ROUTE_UNKNOWN, "There is nothing at this address; /openapi.yaml lists what there is.")
