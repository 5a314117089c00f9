"""GET /v1/grants: what the caller may get."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from broker.errors import BrokerError
from broker.http.callers import Callers
from broker.http.json_answer import JsonAnswer
from broker.http.router import REQUEST_ID
from broker.model.account import account_user
from broker.model.client import Client, Grant
from broker.model.decision import Rules, limits, standing
from broker.model.duration import format_duration
from broker.model.rate import Rate, effective
from broker.model.times import timestamp
from broker.ports import Clock


class GrantsEndpoint:
    """Tells a client its own grants and their bounds; nothing about anybody else."""

    def __init__(self, callers: Callers, rules: Rules, clock: Clock, new_request_id: Callable[[], str]) -> None:
        self._callers = callers
        self._rules = rules
        self._clock = clock
        self._new_request_id = new_request_id

    async def get(self, request: web.BaseRequest) -> web.Response:
        """Answer with the grants of the authenticated client."""
        request[REQUEST_ID] = self._new_request_id()
        client = (await self._callers.with_query(request, self._callers.remote(request))).client
        denied = standing(client, self._clock.now())
        if denied is not None:
            raise BrokerError(denied.reason, denied.detail)
        return JsonAnswer(self._document(client))

    def _document(self, client: Client) -> dict[str, Any]:
        return {
            "client": str(client.id),
            "notAfter": timestamp(client.not_after) if client.not_after else None,
            "rate": _rate(effective(client.rate, self._rules.limits(client.id.namespace).rate)),
            "grants": [self._grant(client, grant) for grant in client.grants],
        }

    def _grant(self, client: Client, grant: Grant) -> dict[str, Any]:
        bounds = limits(grant, self._rules)
        return {
            "name": grant.name,
            "subject": account_user(client.id.namespace, grant.service_account),
            "audiences": list(bounds.audiences),
            "ttl": {
                "min": format_duration(bounds.min_ttl_seconds),
                "default": format_duration(grant.ttl.default_seconds),
                "max": format_duration(bounds.max_ttl_seconds),
            },
            "reuse": format_duration(grant.reuse_seconds),
            "vault": grant.vault is not None,
        }


def _rate(rate: Rate | None) -> dict[str, int] | None:
    return None if rate is None else {"perMinute": rate.per_minute, "burst": rate.burst}
