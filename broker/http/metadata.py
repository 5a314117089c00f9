"""GET /.well-known/oauth-authorization-server: where what is, for OAuth libraries (RFC 8414)."""

import orjson
from aiohttp import web

from broker.http.json_answer import HEADERS
from broker.http.oauth_proofs import AUTHENTICATION_METHODS, GRANT_TYPES


class MetadataEndpoint:
    """Answers with the broker's endpoints under its public URL, and with what they take."""

    def __init__(self, public_url: str, signing_algorithms: frozenset[str]) -> None:
        methods = list(AUTHENTICATION_METHODS)
        algorithms = sorted(signing_algorithms)
        self._body = orjson.dumps(
            {
                "issuer": public_url,
                "token_endpoint": f"{public_url}/oauth2/token",
                "token_endpoint_auth_methods_supported": methods,
                "token_endpoint_auth_signing_alg_values_supported": algorithms,
                "grant_types_supported": list(GRANT_TYPES),
                "response_types_supported": [],
                "introspection_endpoint": f"{public_url}/oauth2/introspect",
                "introspection_endpoint_auth_methods_supported": methods,
                "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
                "service_documentation": f"{public_url}/openapi.yaml",
            }
        )

    async def get(self, _request: web.BaseRequest) -> web.Response:
        """Answer with the metadata: the same for everybody."""
        return web.Response(body=self._body, headers=HEADERS)
