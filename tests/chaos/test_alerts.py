"""A real Prometheus with the rules that operators get says when something breaks: whom it harms, why, what to do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import pytest_asyncio

from tests.monitoring.rules import ALERTS, RULES
from tests.support.alerted import (
    TROUBLED_SECONDS,
    Expected,
    Fired,
    assert_told,
    is_copied,
    remove,
    until_fired,
)
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.watching import Watching, hurried

NAME = "night"
BINDING = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tokenbroker-secrets"
KEPT = {"ttl": "10m", "renewBefore": "9m"}
"""A copy that is due within a minute, so that nobody has to wait for it long."""
WHOLE = ("0.5 * (", "1.0 * (")
"""And an alert on it not when half of what was set aside is used up, but when the rest begins to be."""
QUIET_SECONDS = 5.0

CLIENT = {"namespace": NAME, "client": "web"}
KEEPER = {"namespace": NAME, "client": "keeper"}
ALONE = "night-alone"
"""Another namespace, so that no other client's Role lets the broker end tokens there."""
LEAVER = {"namespace": ALONE, "client": "leaver"}
TAKEN = {"namespace": NAME, "client": "taken"}
MISHAPS: Expected = {
    "TokenbrokerClientNotReady": (
        {**CLIENT, "reason": "ServiceAccountMissing"},
        "night/web is not ready: ServiceAccountMissing.",
    ),
    "TokenbrokerTokensNotEnded": (LEAVER, "Tokens of night-alone/leaver should have ended and live on, of 1 grants."),
    "TokenbrokerVaultNotSynced": (
        {**TAKEN, "reason": "VaultPathTaken"},
        "The copy of night/taken in Vault is not kept: VaultPathTaken.",
    ),
}
"""What is to fire when an account was deleted, the broker's Role was taken away before a client was suspended, and
somebody wrote to a copy's path."""

TROUBLE: Expected = {
    "TokenbrokerVaultUnreachable": ({"reason": "vault_unavailable"}, "cannot use Vault: vault_unavailable."),
    "TokenbrokerVaultTokenExpiring": (
        {**KEEPER, "grant": "default", "reason": "VaultUnavailable"},
        "The token of night/keeper (grant default) in Vault expires in",
    ),
    "TokenbrokerPolicyMissing": ({"policy": "tokenbroker-secrets"}, "tokenbroker-secrets does not hold the broker"),
    "TokenbrokerUnready": ({"reason": "policy_missing"}, "is not ready: policy_missing."),
}
"""What is to fire when Vault was sealed and a policy taken away."""

OUTAGE: Expected = {
    "TokenbrokerTokenRequestsFailing": ({"reason": "kubernetes_unavailable"}, "fail: kubernetes_unavailable."),
    "TokenbrokerNoLeader": ({"job": "tokenbroker"}, "No replica of the broker leads."),
    "TokenbrokerRegistryStale": ({"source": "clients"}, "has not heard of clients for 1m"),
    "TokenbrokerUnready": ({"reason": "registry_stale"}, "is not ready: registry_stale."),
}
"""What is to fire when the API server is away."""

EXPECTED: Expected = MISHAPS | TROUBLE | OUTAGE


@dataclass(slots=True)
class Night:
    """A broker, what watches it, and the alerts that fired so far."""

    lab: Lab
    broker: BrokerProcess
    watching: Watching
    tenant: Tenant
    client: Registered
    keeper: Registered
    fired: Fired = field(default_factory=list)

    async def ask(self, client: Registered, **body: str) -> int:
        """Ask for a token, and return the status."""
        return (await self.broker.call("POST", "/v1/tokens", body, auth=client.auth)).status

    async def until_fired(self, expected: Expected, ask: Callable[[], Awaitable[object]]) -> None:
        """Keep what fires until all of the expected alerts did, or for two minutes; callers go on asking meanwhile."""
        self.fired = await until_fired(self.watching, expected, ask)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def night(harmed: Lab) -> AsyncIterator[Night]:
    """Start a broker with two clients, and a Prometheus that watches it."""
    rules = hurried(RULES)
    expiring = next(
        rule for group in rules["groups"] for rule in group["rules"] if rule["alert"].endswith("TokenExpiring")
    )
    assert WHOLE[0] in expiring["expr"]  # twice: with_threshold is for those that stand once
    expiring["expr"] = expiring["expr"].replace(*WHOLE)
    tenant = await Tenant.create(harmed.cluster, NAME)
    async with BrokerProcess.start(harmed, NAME) as broker:
        client = await tenant.ready_client("web", "reader")
        keeper = await tenant.ready_client("keeper", "kept")
        async with Watching.start(harmed, broker, rules) as watching:
            yield Night(harmed, broker, watching, tenant, client, keeper)
        await remove(harmed.cluster, NAME, ALONE)


@asynccontextmanager
async def troubled(night: Night) -> AsyncIterator[None]:
    """Seal Vault and take a policy away; and mend both."""
    cluster = night.lab.cluster
    await night.lab.vault.seal()
    await cluster.request("DELETE", BINDING)
    try:
        yield
    finally:
        await night.lab.vault.unseal()
        await install(cluster)


async def _is(night: Night, client: Registered, status: int) -> bool:
    return await night.ask(client) == status


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mishaps(night: Night) -> Fired:
    """Let three things go wrong that harm one client each, and return what fires."""
    request, tenant = night.lab.cluster.request, night.tenant
    alone = await Tenant.create(night.lab.cluster, ALONE)
    await alone.ready_client("leaver", "leaver")
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ALONE}/rolebindings"
    await request("DELETE", f"{bindings}/tokenbroker-mint-leaver")
    await request("DELETE", f"/api/v1/namespaces/{NAME}/serviceaccounts/reader")
    await night.lab.vault.api("POST", f"secret/data/tokenbroker/lab/{NAME}/taken/default", {"data": {"mine": "yes"}})
    await tenant.ready_client("taken", "taker", vault={})
    await until(partial(_is, night, night.client, 409), what="the account is missed")
    await asyncio.sleep(QUIET_SECONDS)  # nothing says when the API server's authorizer knows
    await alone.patch("leaver", {"suspend": True})
    await night.until_fired(MISHAPS, partial(night.ask, night.client))
    await alone.allow_minting("leaver")
    await tenant.account("reader")
    await request("DELETE", f"{tenant.path}/taken")
    return night.fired


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trouble(night: Night, mishaps: Fired) -> Fired:
    """Let two things break that harm all clients, and return what fires."""
    assert mishaps
    await night.tenant.patch("keeper", {"grants": [{"serviceAccount": {"name": "kept"}, "vault": KEPT}]})
    await until(partial(is_copied, night.tenant, "keeper"), what="the token is in Vault")
    async with troubled(night):
        await night.until_fired(TROUBLE, partial(night.ask, night.keeper, deliver="vault"))
    return night.fired


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outage(night: Night, trouble: Fired) -> Fired:
    """End the API server, when all is well again, and return what fires."""
    assert trouble is night.fired
    await until(partial(_is, night, night.keeper, 200), what="tokens are issued again", seconds=90)
    cluster = night.lab.cluster
    await cluster.api_server.kill()
    try:
        await night.until_fired(OUTAGE, partial(night.ask, night.keeper))
    finally:
        cluster.api_server.start()
        await cluster.ready()
    return night.fired


async def test_nothing_fires_while_all_is_well(night: Night) -> None:
    """Over more time than the rules wait here, with callers and a copy in Vault."""
    for client in (night.client, night.keeper):
        assert await night.ask(client) == 200
    await asyncio.sleep(QUIET_SECONDS)  # nothing says that nothing will happen

    assert await night.watching.firing() == []


@pytest.mark.parametrize("alert", MISHAPS)
async def test_what_harms_one_client_is_told(alert: str, mishaps: Fired) -> None:
    """By an alert that names the client, the reason and the runbook."""
    assert_told(mishaps, alert, *MISHAPS[alert])


@pytest.mark.parametrize("alert", TROUBLE)
async def test_what_breaks_is_told(alert: str, trouble: Fired) -> None:
    """By an alert that names the client, the reason and the runbook."""
    assert_told(trouble, alert, *TROUBLE[alert])


@pytest.mark.parametrize("alert", OUTAGE)
async def test_an_outage_of_the_api_server_is_told(alert: str, outage: Fired) -> None:
    """By an alert that names the reason and the runbook."""
    assert_told(outage, alert, *OUTAGE[alert])


async def test_nothing_fires_when_all_is_well_again(night: Night, outage: Fired) -> None:
    """Alerts end with their causes; what goes by a rate over minutes may take those."""
    assert outage
    lasting = {name for name, rule in ALERTS.items() if "[" in rule["expr"]}

    async def ended() -> bool:
        return {alert["labels"]["alertname"] for alert in await night.watching.firing()} <= lasting

    await until(ended, what="the alerts end", seconds=TROUBLED_SECONDS, programs=[night.broker.program])
    assert await ended()
