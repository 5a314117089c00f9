"""Every panel of the dashboard shows something of a broker that is used, at times wrongly, and cannot do all it should.

An account is missing, and somebody takes away the Role by which the broker would end a suspended client's tokens.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.monitoring.rules import COMPONENT, RULES
from tests.support.alerted import remove
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.issuer import Issuer
from tests.support.lab import Lab
from tests.support.processes import ProgramError, free_port, until
from tests.support.watching import Watching

NAME = "dashboard"
ALONE = "dashboard-alone"
"""Another namespace, so that no other client's Role lets the broker end tokens there."""
CHOSEN = {"$__rate_interval": "30s", "$job": ".*", "$namespace": ".*", "$client": ".*"}
"""What Grafana puts in the place of what is chosen at the top."""
NOBODY = "nobody"
"""A job that there is not."""
FALLBACK = " or vector(0)"
"""By it a panel shows a zero where there is nothing: here that is nothing."""
SHOWN_SECONDS = 60.0
QUIET_SECONDS = 5.0

DASHBOARD: dict[str, Any] = json.loads((COMPONENT / "dashboard.json").read_text(encoding="utf-8"))
PANELS = {panel["title"]: panel["targets"] for panel in DASHBOARD["panels"] if panel["type"] != "row"}
CROWD = 12
"""More than have their turn at once."""
OPENED: dict[str, dict[str, Any]] = {
    "single": {"revocation": "Token"},
    "shared": {"reuse": "1m"},
    "kept": {"vault": {"ttl": "1h"}},
    "default": {},
}


@dataclass(slots=True)
class Used:
    """A broker, those who use it, and the panels that show nothing yet."""

    broker: BrokerProcess
    watching: Watching
    issuer: Issuer
    client: Registered
    empty: dict[str, str] = field(default_factory=dict)

    async def use(self) -> None:
        """Do each thing that there is a panel for, right and wrong."""
        tokens, auth = "/v1/tokens", self.client.auth
        for grant in OPENED:
            reply = await self.broker.call("POST", tokens, {"grant": grant}, auth=auth)
            assert reply.status == 200, reply.body
            if grant == "single":
                await self.broker.call("DELETE", f"{tokens}/{reply.body['id']}", auth=auth)
        await self.broker.call("POST", tokens, {"grant": "kept", "deliver": "vault"}, auth=auth)
        await self.broker.call("POST", tokens, {"grant": "single", "ttl": "90h"}, auth=auth)
        await self.broker.call("POST", tokens, {}, auth=(auth[0], "wrong"))
        await asyncio.gather(*(self._ask() for _ in range(CROWD)))
        proof = {"Authorization": f"Bearer {self.issuer.token(self.broker.url)}"}
        await self.broker.call("POST", tokens, {"client": self.client.id}, headers=proof)

    async def _ask(self) -> None:
        reply = await self.broker.call("POST", "/v1/tokens", {"grant": "default"}, auth=self.client.auth)
        assert reply.status == 200, reply.body

    async def shown(self) -> bool:
        """Use the broker, and tell whether all panels show something."""
        await self.use()
        self.empty = {title: expr for title, targets in PANELS.items() for expr in await self._empty(targets)}
        return not self.empty

    async def _empty(self, targets: list[dict[str, str]]) -> list[str]:
        expressions = [filled(target["expr"]) for target in targets]
        return [one for one in expressions if not any(map(is_number, await self.watching.query(one)))]


def filled(expression: str, **chosen: str) -> str:
    """Return an expression as Grafana asks for it, but for its fallback; ``chosen`` is what is not as by default."""
    for name, value in (CHOSEN | {f"${name}": value for name, value in chosen.items()}).items():
        expression = expression.replace(name, value)
    return expression.removesuffix(FALLBACK)


def is_number(sample: dict[str, Any]) -> bool:
    """Tell whether a sample has something to draw."""
    return not math.isnan(float(sample["value"][1]))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def used(harmed: Lab) -> AsyncIterator[Used]:
    """Start a broker and what watches it, register good and bad clients, and use it until all is shown."""
    tenant, port = await Tenant.create(harmed.cluster, NAME), free_port()
    listen = {"port": port, "public_url": f"http://127.0.0.1:{port}"}
    async with Issuer.start(harmed.folder / "dashboard-issuer") as issuer:
        oidc = {"issuers": [issuer.config()]}
        async with (
            BrokerProcess.start(harmed, NAME, listen=listen, oidc=oidc, queue={"concurrency": 2}) as broker,
            Watching.start(harmed, broker, RULES) as watching,
        ):
            await tenant.account("reader")
            client = await tenant.client("web", *(_grant(name, more) for name, more in OPENED.items()))
            await tenant.until_reason("web", "Ready")
            await tenant.client("broken", {"serviceAccount": {"name": "nobody"}})
            await tenant.until_reason("broken", "BrokerNotAuthorized")
            await tenant.ready_client("gone", "leaver")
            await tenant.patch("gone", {"suspend": True})
            await tenant.until_reason("gone", "Suspended")
            alone = await _orphaned(harmed)
            made = Used(broker, watching, issuer, client)
            with suppress(ProgramError):  # each test says which panel does not
                await until(made.shown, what="all panels show something", seconds=SHOWN_SECONDS)
            yield made
            await alone.allow_minting("leaver")
            await remove(harmed.cluster, NAME, ALONE)


async def _orphaned(lab: Lab) -> Tenant:
    """Suspend a client whose tokens the broker may not end any more, and return where it is."""
    alone = await Tenant.create(lab.cluster, ALONE)
    await alone.ready_client("orphaned", "leaver")
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ALONE}/rolebindings"
    status, _ = await lab.cluster.request("DELETE", f"{bindings}/tokenbroker-mint-leaver")
    assert status == 200
    await asyncio.sleep(QUIET_SECONDS)  # nothing says when the API server's authorizer knows
    await alone.patch("orphaned", {"suspend": True})
    return alone


def _grant(name: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "serviceAccount": {"name": "reader"}, **more}


@pytest.mark.parametrize("title", PANELS)
async def test_a_panel_shows_something(title: str, used: Used) -> None:
    """All of its queries have a number to draw."""
    assert title not in used.empty, used.empty[title]


@pytest.mark.parametrize("title", PANELS)
async def test_a_panel_of_nobody_shows_nothing(title: str, used: Used) -> None:
    """So what it shows of a broker comes from that broker: no panel has a number that is always there."""
    expressions = [filled(target["expr"], job=NOBODY) for target in PANELS[title]]

    assert [one for one in expressions if await used.watching.query(one)] == []


async def test_a_panel_of_what_nobody_counts_would_be_found(used: Used) -> None:
    """The check can fail, also where a panel has a fallback."""
    nothing = "sum(tokenbroker_nothing_total)"

    assert await used._empty([{"expr": nothing}, {"expr": f"{nothing}{FALLBACK}"}]) == [nothing, nothing]
