"""POST /v1/tokens: the request's way in and the token's way out. Start reading here."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

from broker.errors import BrokerError, ProofFailure, Reason
from broker.http.body import read_object
from broker.http.credentials import read_basic
from broker.http.problems import PLAIN
from broker.model.client import Client
from broker.model.cluster import ClusterInfo
from broker.model.decision import Ask
from broker.model.status import timestamp
from broker.services.authenticate import Authenticator
from broker.services.deliver import Deliverer
from broker.services.issue import Issued, Issuer, Origin
from broker.services.rotate import Delivered

FIELDS = frozenset({"client", "grant", "ttl", "audience", "deliver"})
_HEADERS = {"Content-Type": "application/json", **PLAIN}
DELIVERIES = frozenset({None, "response", "vault"})


class AnswerMetrics(Protocol):
    """What is told about answers."""

    def arrived(self) -> None:
        """Count one request in."""

    def answered(self, seconds: float) -> None:
        """Count one request out, and observe the time that it took."""


class TokensEndpoint:
    """Answers POST /v1/tokens."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        issuer: Issuer,
        deliverer: Deliverer,
        cluster: ClusterInfo,
        metrics: AnswerMetrics,
        new_request_id: Callable[[], str],
        body_timeout_seconds: float,
    ) -> None:
        self._authenticator = authenticator
        self._issuer = issuer
        self._deliverer = deliverer
        self._cluster = {"name": cluster.name, "server": cluster.server, "ca": cluster.ca_pem}
        self._metrics = metrics
        self._new_request_id = new_request_id
        self._body_timeout = body_timeout_seconds

    async def post(self, request: web.Request) -> web.Response:
        """Authenticate, then read the body, then hand out: a stranger's body is not even looked at."""
        started = time.perf_counter()
        self._metrics.arrived()
        request["request_id"] = request_id = self._new_request_id()
        try:
            client = authenticate(self._authenticator, request)
            document = await read_object(request, self._body_timeout)
            ask, origin = parse(document, client), Origin(request_id, request.remote or "")
            if document.get("deliver") == "vault":
                return _delivered(await self._deliverer.deliver(client, ask, origin), request_id)
            return self._rendered(await self._issuer.issue(client, ask, origin), request_id)
        finally:
            self._metrics.answered(time.perf_counter() - started)

    def _rendered(self, issued: Issued, request_id: str) -> web.Response:
        token, allowed = issued.token, issued.allowed
        return json_response(
            {
                "id": token.jti,
                "token": token.value.reveal(),
                "expirationTimestamp": timestamp(token.expires_at),
                "ttl": _ttl(allowed.ttl_seconds, token.granted_seconds),
                "grant": allowed.grant.name,
                "audience": allowed.audience,
                "subject": issued.subject,
                "cluster": self._cluster,
                "request_id": request_id,
            }
        )


def _delivered(delivered: Delivered, request_id: str) -> web.Response:
    return json_response(
        {
            "vault": {"path": delivered.path, "version": delivered.version},
            "expirationTimestamp": timestamp(delivered.expires_at),
            "ttl": _ttl(delivered.requested_seconds, delivered.granted_seconds),
            "grant": delivered.grant,
            "audience": delivered.audience,
            "subject": delivered.subject,
            "request_id": request_id,
        }
    )


def _ttl(requested: int, granted: int) -> dict[str, Any]:
    reason = "shortened_by_api_server" if granted < requested else None
    return {"requestedSeconds": requested, "grantedSeconds": granted, "reason": reason}


def authenticate(authenticator: Authenticator, request: web.Request) -> Client:
    """Return the client that the request's Authorization header proves. Raises BrokerError(invalid_client)."""
    proof = read_basic(request.headers.get("Authorization"))
    if isinstance(proof, ProofFailure):
        raise authenticator.failed(proof)
    return authenticator.authenticate(*proof)


def parse(document: dict[str, Any], client: Client) -> Ask:
    """Return the request that a JSON object stands for. Raises BrokerError(invalid_request)."""
    unknown = document.keys() - FIELDS
    if unknown:
        raise _invalid(f"Unknown fields; known are: {', '.join(sorted(FIELDS))}.")
    for name, value in document.items():
        if value is not None and not isinstance(value, str):
            raise _invalid(f"The field {name!r} must be a string.")
    if document.get("client") not in {None, str(client.id)}:
        raise _invalid("The field 'client' names another client than the one that authenticated.")
    if document.get("deliver") not in DELIVERIES:
        raise _invalid("The field 'deliver' must be 'response' or 'vault'.")
    return Ask(document.get("grant"), document.get("ttl"), document.get("audience"))


def json_response(document: dict[str, Any]) -> web.Response:
    """Return an answer that no cache keeps."""
    return web.Response(body=orjson.dumps(document), headers=_HEADERS)


def _invalid(detail: str) -> BrokerError:
    return BrokerError(Reason.INVALID_REQUEST, detail)
