"""POST /v1/tokens: the request's way in and the token's way out. Start reading here."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.http.callers import Callers
from broker.http.formats import FORMATS, KUBECONFIG, TOKEN, Formats, ttl
from broker.http.json_answer import JsonAnswer
from broker.http.router import REQUEST_ID
from broker.model.audit_record import Origin
from broker.model.client import Client
from broker.model.decision import Ask
from broker.model.times import timestamp
from broker.services.deliver import Deliverer
from broker.services.explain import Explainer, Explanation
from broker.services.issue import Issuer
from broker.services.rotation.rotate import Delivered

FIELDS = frozenset({"client", "grant", "ttl", "audience", "deliver", "format", "exec", "dry_run"})
FLAGS = frozenset({"exec", "dry_run"})
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
        callers: Callers,
        issuer: Issuer,
        deliverer: Deliverer,
        explainer: Explainer,
        formats: Formats,
        metrics: AnswerMetrics,
        new_request_id: Callable[[], str],
    ) -> None:
        self._callers = callers
        self._issuer = issuer
        self._deliverer = deliverer
        self._explainer = explainer
        self._formats = formats
        self._metrics = metrics
        self._new_request_id = new_request_id

    async def post(self, request: web.BaseRequest) -> web.Response:
        """Find out who calls and what for, then hand out."""
        started = time.perf_counter()
        self._metrics.arrived()
        request[REQUEST_ID] = request_id = self._new_request_id()
        try:
            remote = self._callers.remote(request)
            caller, document = await self._callers.with_object(request, remote)
            client, origin = caller.client, Origin(request_id, remote, caller.proved_by)
            ask = parse(document, client)
            if document.get("dry_run"):
                delivery = document.get("deliver") == "vault"
                return _explained(self._explainer.explain(caller, ask, delivery=delivery), request_id)
            if document.get("deliver") == "vault":
                return _delivered(await self._deliverer.deliver(client, ask, origin), request_id)
            if document.get("exec"):
                allowed = self._issuer.allowed(client, ask, origin)
                return self._formats.fetching_kubeconfig(client, ask, allowed)
            render = self._formats.render[str(document.get("format") or TOKEN)]
            return render(await self._issuer.issue(client, ask, origin), request_id)
        finally:
            self._metrics.answered(time.perf_counter() - started)


def _delivered(delivered: Delivered, request_id: str) -> web.Response:
    return JsonAnswer(
        {
            "vault": {"path": delivered.path, "version": delivered.version},
            "expirationTimestamp": timestamp(delivered.expires_at),
            "ttl": ttl(delivered.requested_seconds, delivered.granted_seconds),
            "grant": delivered.grant,
            "audience": delivered.audience,
            "subject": delivered.subject,
            "request_id": request_id,
        }
    )


def _explained(explanation: Explanation, request_id: str) -> web.Response:
    denied = explanation.denied
    document: dict[str, Any] = {
        "dry_run": True,
        "allowed": denied is None,
        "code": None if denied is None else denied.reason,
        "steps": [{"step": step.name, "ok": step.denied is None, "detail": step.detail} for step in explanation.steps],
        "request_id": request_id,
    }
    if denied is not None and denied.limits is not None:
        document["limits"] = asdict(denied.limits)
    return JsonAnswer(document)


def parse(document: dict[str, Any], client: Client) -> Ask:
    """Return the request that a JSON object stands for. Raises BrokerError(invalid_request)."""
    unknown = document.keys() - FIELDS
    if unknown:
        raise _invalid(f"Unknown fields; known are: {', '.join(sorted(FIELDS))}.")
    for name, value in document.items():
        wanted, kind = (bool, "a boolean") if name in FLAGS else (str, "a string")
        if value is not None and not isinstance(value, wanted):
            raise _invalid(f"The field {name!r} must be {kind}.")
    if document.get("client") not in {None, str(client.id)}:
        raise _invalid("The field 'client' names another client than the one that authenticated.")
    if document.get("deliver") not in DELIVERIES:
        raise _invalid("The field 'deliver' must be 'response' or 'vault'.")
    if document.get("format") not in {None, *FORMATS}:
        raise _invalid(f"The field 'format' must be one of: {', '.join(FORMATS)}.")
    if document.get("format") and document.get("deliver") == "vault":
        raise _invalid("The field 'format' is for tokens in the response: Vault has them in every format.")
    if document.get("exec") and document.get("format") != KUBECONFIG:
        raise _invalid("The field 'exec' is for the format 'kubeconfig'.")
    return Ask(document.get("grant"), document.get("ttl"), document.get("audience"))


def _invalid(detail: str) -> BrokerError:
    return BrokerError(Reason.INVALID_REQUEST, detail)
