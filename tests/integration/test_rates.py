"""How many tokens a client is handed out: by its own word and the operator's, at once when either changes."""

from typing import Any

import pytest

from tests.support.broker import BrokerProcess, Registered, Reply, Tenant
from tests.support.lab import Lab
from tests.support.processes import until

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def token(broker: BrokerProcess, client: Registered, **asked: Any) -> Reply:
    """Ask for a token."""
    return await broker.call("POST", "/v1/tokens", asked, auth=client.auth)


async def shown(broker: BrokerProcess, client: Registered) -> object:
    """Return the rate that the client is told."""
    return (await broker.call("GET", "/v1/grants", auth=client.auth)).body["rate"]


async def limited(broker: BrokerProcess, tenant: Tenant, **rate: int) -> Registered:
    """Register a client with a rate that this broker serves."""
    await tenant.account("reader")
    client = await tenant.client("limited", {"serviceAccount": {"name": "reader"}, "vault": {}}, rate=rate)
    await broker.until_ready(client.id)
    return client


async def test_beyond_its_rate_a_client_is_told_when_to_come_again(broker: BrokerProcess, tenant: Tenant) -> None:
    """On every way to a token, in its own words; a dry run says so, too, and others notice nothing."""
    client = await limited(broker, tenant, perMinute=1, burst=3)
    before = (await token(broker, client, dry_run=True)).body
    given = [(await token(broker, client)).status, (await token(broker, client, format="kubeconfig")).status]
    oauth = await broker.call(
        "POST", "/oauth2/token", auth=client.auth, data=b"grant_type=client_credentials", headers=FORM
    )
    refused = await token(broker, client)
    in_oauth = await broker.call(
        "POST", "/oauth2/token", auth=client.auth, data=b"grant_type=client_credentials", headers=FORM
    )
    into_vault = await token(broker, client, deliver="vault")
    after = (await token(broker, client, dry_run=True)).body
    neighbour = await tenant.client("neighbour", {"serviceAccount": {"name": "reader"}})
    await broker.until_ready(neighbour.id)

    assert (given, oauth.status) == ([200, 200], 200)
    assert (refused.status, refused.body["code"]) == (429, "rate_limited")
    assert 50 <= int(refused.headers["Retry-After"]) <= 60
    assert (in_oauth.status, in_oauth.body["error"], in_oauth.body["code"]) == (
        429,
        "temporarily_unavailable",
        "rate_limited",
    )
    assert "Retry-After" in in_oauth.headers
    assert (into_vault.status, into_vault.body["code"]) == (429, "rate_limited")
    assert before["allowed"]
    assert (after["code"], after["steps"][-1]["step"]) == ("rate_limited", "rate")
    assert await shown(broker, client) == {"perMinute": 1, "burst": 3}
    assert (await token(broker, neighbour)).status == 200
    assert await shown(broker, neighbour) is None


async def test_a_changed_rate_holds_at_once(broker: BrokerProcess, tenant: Tenant) -> None:
    """Without a restart, and without waiting for what the old one owed."""
    client = await limited(broker, tenant, perMinute=1, burst=1)
    await token(broker, client)
    refused = await token(broker, client)
    await tenant.patch("limited", {"rate": {"perMinute": 100_000, "burst": 50}})

    async def raised() -> bool:
        return await shown(broker, client) == {"perMinute": 100_000, "burst": 50}

    await until(raised, what="the new rate is known")
    await broker.until_ready(client.id)

    async def issued() -> bool:
        return (await token(broker, client)).status == 200

    assert refused.status == 429
    await until(issued, what="it gets tokens again")


async def test_who_went_is_forgotten(broker: BrokerProcess, tenant: Tenant) -> None:
    """A client of the same name that is registered later owes nothing."""
    before = await limited(broker, tenant, perMinute=1, burst=1)
    given = [(await token(broker, before)).status for _ in range(2)]
    await tenant.cluster.request("DELETE", f"{tenant.path}/limited")

    async def gone() -> bool:
        found, _ = await tenant.cluster.request("GET", f"{tenant.path}/limited")
        return found == 404 and (await token(broker, before)).status == 401

    await until(gone, what="the client is gone, for the broker, too")
    again = await limited(broker, tenant, perMinute=1, burst=1)

    assert given == [200, 429]
    assert (await token(broker, again)).status == 200


@pytest.mark.usefixtures("broker")
async def test_the_operators_rate_is_a_default_and_a_bound(installed: Lab, tenant: Tenant) -> None:
    """A TokenClient can only ask for less."""
    limits = [{"namespaces": [tenant.namespace], "rate": {"per_minute": 60, "burst": 2}}]
    await tenant.account("reader")
    grant = {"serviceAccount": {"name": "reader"}}
    async with BrokerProcess.start(installed, "bounding", limits=limits) as broker:
        silent = await tenant.client("silent", grant)
        greedy = await tenant.client("greedy", grant, rate={"perMinute": 6000, "burst": 100})
        modest = await tenant.client("modest", grant, rate={"perMinute": 1, "burst": 1})
        for client in (silent, greedy, modest):
            await broker.until_ready(client.id)
        rates = [await shown(broker, client) for client in (silent, greedy, modest)]
        given = [(await token(broker, modest)).status for _ in range(2)]

    assert rates == [{"perMinute": 60, "burst": 2}, {"perMinute": 60, "burst": 2}, {"perMinute": 1, "burst": 1}]
    assert given == [200, 429]
