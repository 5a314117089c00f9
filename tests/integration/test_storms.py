"""All instances of a client start at once, at a real broker and API server; and what takes tokens away meanwhile."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from broker.identity import secret
from tests.support import witness
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.command import command_with
from tests.support.fault_proxy import HoldingProxy
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.volley import CONNECTIONS, Volley, endless, volley

STORM, FEW = 5000, 5
IN_FORCE_SECONDS = 10.0
"""How long the test waits for a change to be in force on a machine that does other things, too."""


@dataclass(frozen=True, slots=True)
class Stormy:
    """A cluster of the tests' own, whose API server writes down each TokenRequest, and a broker."""

    lab: Lab
    broker: BrokerProcess
    proxy: HoldingProxy

    async def client(self, name: str, **grant: Any) -> tuple[Tenant, Registered]:
        """Return a client that is served, in a namespace of its own."""
        tenant = await Tenant.create(self.lab.cluster, name)
        registered = await tenant.ready_client("collector", **grant)
        await self.broker.until_ready(registered.id)
        return tenant, registered

    async def metric(self, series: str) -> float:
        """Return the value of a series."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", await self.broker.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def token_requests(self, namespace: str) -> tuple[float, int]:
        """Return how many TokenRequests the broker has counted, and its namespace's by the API server's audit log."""
        counted = await self.metric("tokenbroker_token_request_duration_seconds_count")
        return counted, witness.token_requests(self.lab.folder, namespace)

    async def in_flight(self, count: int) -> bool:
        """Tell whether so many requests are being answered."""
        return await self.metric("tokenbroker_requests_in_flight") == count

    async def refuses(self, client: Registered) -> bool:
        """Tell whether one more request is refused; one that has to wait, too, is given up."""
        try:
            async with asyncio.timeout(0.3):
                reply = await self.broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        except TimeoutError:
            return False
        return reply.status != 200

    def issued(self, client: Registered) -> list[dict[str, Any]]:
        """Return the records of a client's hand-outs, in the broker's own order."""
        return [it for it in self.broker.records(client.id) if it["event"] == "token.issued"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stormy() -> AsyncIterator[Stormy]:
    """Start it."""
    async with Lab.start(own=True, witnessed=True) as lab:
        await install(lab.cluster)
        folder = lab.folder / "holding"
        folder.mkdir()
        token = folder / "token"
        token.write_text(await lab.cluster.token_for("tokenbroker", "tokenbroker"))
        async with HoldingProxy.start(lab.cluster, folder) as proxy:
            kubernetes = {"server": proxy.url, "ca_file": str(proxy.ca_file), "token_file": str(token)}
            async with BrokerProcess.start(
                lab, log_level="info", kubernetes=kubernetes | {"timeout_seconds": 30}
            ) as broker:
                yield Stormy(lab, broker, proxy)


async def test_a_storm_costs_few_token_requests_and_has_a_record_a_hand_out(stormy: Stormy) -> None:
    """5,000 requests: counted by the broker, by the API server, and by the audit log, in which each has its own."""
    _, client = await stormy.client("storm", reuse="1m")
    before = await stormy.token_requests("storm")
    made = await volley(stormy.broker, client, STORM)
    after = await stormy.token_requests("storm")
    records = stormy.issued(client)
    tokens = {answer.body["token"] for answer in made.answers}

    assert {answer.status for answer in made.answers} == {200}
    assert 1 <= len(tokens) <= FEW
    assert [after[0] - before[0], after[1] - before[1]] == [len(tokens)] * 2
    assert {it["request_id"] for it in records} == {answer.body["request_id"] for answer in made.answers}
    assert [len(records), len({it["request_id"] for it in records})] == [STORM] * 2
    assert len({it["jti"] for it in records}) == sum(not it["reused"] for it in records) == len(tokens)
    labels = 'client="collector",grant="default",namespace="storm"'
    assert await stormy.metric(f"tokenbroker_tokens_issued_total{{{labels}}}") == STORM
    assert await stormy.metric(f"tokenbroker_tokens_reused_total{{{labels}}}") == STORM - len(tokens)
    assert (await stormy.lab.cluster.request("GET", "/api/v1/namespaces/storm/pods", token=tokens.pop()))[0] == 200


async def test_what_is_told_of_a_shared_token_is_true(stormy: Stormy) -> None:
    """Its own end, what is left of its life, and what the grant is."""
    _, client = await stormy.client("honest", reuse="1m")
    first, again = [await stormy.broker.call("POST", "/v1/tokens", {}, auth=client.auth) for _ in range(2)]
    form = b"grant_type=client_credentials"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    oauth = await stormy.broker.call("POST", "/oauth2/token", auth=client.auth, data=form, headers=headers)
    grants = await stormy.broker.call("GET", "/v1/grants", auth=client.auth)

    assert first.body["ttl"] == {"requestedSeconds": 900, "grantedSeconds": 900, "reason": None}
    assert again.body["token"] == first.body["token"] == oauth.body["access_token"]
    assert again.body["ttl"]["reason"] == "reused"
    assert 800 < again.body["ttl"]["grantedSeconds"] < 900
    assert again.body["expirationTimestamp"] == first.body["expirationTimestamp"]
    assert 800 < oauth.body["expires_in"] <= 900
    assert grants.body["grants"][0]["reuse"] == "1m"


async def test_without_reuse_every_token_is_handed_out_once(stormy: Stormy) -> None:
    """Nothing is shared that nobody asked to share."""
    _, client = await stormy.client("single")
    made = await volley(stormy.broker, client, 200)

    assert len({answer.body["token"] for answer in made.answers}) == 200


async def suspended(tenant: Tenant) -> None:
    """Pull the switch."""
    await tenant.patch("collector", {"suspend": True})


async def over(tenant: Tenant) -> None:
    """Let the registration end."""
    await tenant.patch("collector", {"notAfter": "2026-01-01T00:00:00Z"})


async def without_the_grant(tenant: Tenant) -> None:
    """Take the grant away, and give another one: the client's instances do not say which they mean."""
    await tenant.patch("collector", {"grants": [{"name": "other", "serviceAccount": {"name": "nobody"}}]})


async def another_secret(tenant: Tenant) -> None:
    """Take away what the instances are proved by."""
    digest = secret.format_digest(secret.digest(secret.generate().reveal()))
    await tenant.patch("collector", {"authentication": [{"clientSecret": {"digests": [digest]}}]})


async def deleted(tenant: Tenant) -> None:
    """Delete the client."""
    assert (await tenant.cluster.request("DELETE", f"{tenant.path}/collector"))[0] == 200


async def opted_out(tenant: Tenant) -> None:
    """Take the label off the namespace."""
    labels = {"metadata": {"labels": {"tokenbroker.dev/clients": None}}}
    assert (await tenant.cluster.request("PATCH", f"/api/v1/namespaces/{tenant.namespace}", labels))[0] == 200


async def denied(tenant: Tenant) -> None:
    """Give the account what it must not be able to do, and have it looked at."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{tenant.namespace}"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]
    await tenant.cluster.request("POST", f"{rbac}/roles", {"metadata": {"name": "more"}, "rules": rules})
    role = {"kind": "Role", "name": "more", "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": tenant.namespace}
    binding = {"metadata": {"name": "more"}, "roleRef": role, "subjects": [subject]}
    assert (await tenant.cluster.request("POST", f"{rbac}/rolebindings", binding))[0] == 201
    await tenant.patch("collector", {"owner": "somebody else"})


ENDS: list[Callable[[Tenant], Awaitable[None]]] = [
    suspended,
    over,
    without_the_grant,
    another_secret,
    deleted,
    opted_out,
]


@pytest.mark.parametrize("end", [*ENDS, denied])
async def test_nobody_gets_a_shared_token_after_its_client_may_have_none(
    end: Callable[[Tenant], Awaitable[None]], stormy: Stormy
) -> None:
    """In the middle of a storm, over 64 connections: from the first refusal on there is no hand-out any more."""
    expect = {"deny": ["delete pods"]}
    tenant, client = await stormy.client(end.__name__.replace("_", "-"), reuse="5m", expect=expect)
    async with endless(stormy.broker, client) as storm:
        await storm.until(200)
        await end(tenant)
        refused_at = await first_refusal(storm)
        await storm.until(len(storm.answers) + 500)

    refused = [it.body.get("code") for it in storm.answers if it.began > refused_at]
    assert len(refused) >= 400
    assert [it.status for it in storm.answers if it.began > refused_at and it.status == 200] == []
    assert len({it.body["token"] for it in storm.answers if it.status == 200}) <= 2
    assert ("access_not_as_declared" in refused) is (end is denied)


@pytest.mark.parametrize("end", ENDS)
async def test_who_waits_for_a_shared_token_is_decided_anew(
    end: Callable[[Tenant], Awaitable[None]], stormy: Stormy
) -> None:
    """The API server has minted it, and its answer comes when the client may have none any more."""
    tenant, client = await stormy.client(f"waits-{end.__name__.replace('_', '-')}", reuse="5m")
    mints = stormy.proxy.mints
    stormy.proxy.open.clear()
    try:
        async with endless(stormy.broker, client) as waiting:
            await until(partial(stormy.in_flight, CONNECTIONS), what="all of them wait")
            await end(tenant)
            await until(partial(stormy.refuses, client), what="it is in force", seconds=IN_FORCE_SECONDS)
            answered = len(waiting.answers)
            stormy.proxy.open.set()
            await waiting.until(CONNECTIONS)
    finally:
        stormy.proxy.open.set()

    assert (answered, stormy.proxy.mints - mints) == (0, 1)
    assert 200 not in {it.status for it in waiting.answers}
    assert stormy.issued(client) == []


async def test_revoke_all_gives_everybody_a_new_token(stormy: Stormy) -> None:
    """In the middle of a storm: when the command has ended, nobody gets the token that it has ended."""
    tenant, client = await stormy.client("revoked", reuse="5m")
    async with endless(stormy.broker, client) as storm:
        await storm.until(200)
        ended = await command_with(stormy.lab.cluster.kubeconfig, "client", "revoke-all", client.id)
        ended_at = time.monotonic()
        await storm.until(len(storm.answers) + 500)
    later = {it.body["token"] for it in storm.answers if it.began > ended_at and it.status == 200}

    assert ended.code == 0, ended.stderr
    assert len(later) == 1
    assert storm.answers[0].body["token"] not in later
    path = f"/api/v1/namespaces/{tenant.namespace}/pods"
    assert (await tenant.cluster.request("GET", path, token=later.pop()))[0] == 200

    async def refused() -> bool:
        return (await tenant.cluster.request("GET", path, token=storm.answers[0].body["token"]))[0] == 401

    await until(refused, what="the old token is refused", seconds=15)


async def first_refusal(storm: Volley) -> float:
    """Return when somebody was refused first."""

    async def refused() -> bool:
        return any(it.status != 200 for it in storm.answers)

    await until(refused, what="somebody is refused", seconds=IN_FORCE_SECONDS)
    return next(it.ended for it in storm.answers if it.status != 200)
