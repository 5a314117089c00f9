"""Ending tokens from the command line: with the client's own proof, and with somebody's rights in the namespace."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.cli.client import removing
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.command import Ended, command, command_with
from tests.support.locks import Rule, User
from tests.support.processes import until

CLIENTS: Rule = {"apiGroups": ["tokenbroker.dev"], "resources": ["tokenclients"], "verbs": ["get", "patch"]}


async def token_revoke(broker: BrokerProcess, client: Registered, folder: Path, *words: str, stdin: str = "") -> Ended:
    """Run ``tokenbroker token revoke`` as a client."""
    secret = folder / "secret"
    secret.write_text(client.secret)
    secret.chmod(0o600)
    who = ("--url", broker.url, "--client", client.id, "--secret-file", str(secret))
    return await asyncio.to_thread(command, "token", "revoke", *words, *who, stdin=stdin)


async def asked(broker: BrokerProcess, client: Registered) -> Any:
    """Return the broker's answer to a request for a token."""
    return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).body


async def until_refused(tenant: Tenant, token: str) -> None:
    """Wait until the API server refuses a token."""

    async def refused() -> bool:
        path = f"/api/v1/namespaces/{tenant.namespace}/pods"
        return (await tenant.cluster.request("GET", path, token=token))[0] == 401

    await until(refused, what="the token is refused")


async def test_a_client_revokes_by_id_and_by_token(broker: BrokerProcess, tenant: Tenant, tmp_path: Path) -> None:
    """Both end the token; neither tells whether there was one."""
    client = await tenant.ready_client("web", revocation="Token")
    await broker.until_ready(client.id)
    first, second = await asked(broker, client), await asked(broker, client)
    by_id = await token_revoke(broker, client, tmp_path, first["id"])
    by_token = await token_revoke(broker, client, tmp_path, "--token-file", "-", stdin=second["token"] + "\n")
    again = await token_revoke(broker, client, tmp_path, first["id"])

    assert [(it.code, it.stdout) for it in (by_id, by_token, again)] == [(0, "")] * 3
    assert {it.stderr for it in (by_id, by_token, again)} == {"revoked, if there was such a token of this client\n"}
    for it in (first, second):
        await until_refused(tenant, it["token"])
    assert [it["event"] for it in broker.records(client.id)].count("token.revoked") == 2


async def test_a_token_that_shares_its_end_is_refused(broker: BrokerProcess, tenant: Tenant, tmp_path: Path) -> None:
    """By id the command knows it without asking; by token the broker says so."""
    client = await tenant.ready_client("web")
    await broker.until_ready(client.id)
    got = await asked(broker, client)
    by_id = await token_revoke(broker, client, tmp_path, got["id"])
    unknown = await token_revoke(broker, client, tmp_path, "0123456789abcdef01234567")
    by_token = await token_revoke(broker, client, tmp_path, "--token-file", "-", stdin=got["token"])

    assert (by_id.code, by_token.code, unknown.code) == (2, 1, 0)
    assert "share theirs" in by_id.stderr
    assert "unsupported_token_type" in by_token.stderr
    assert "if there was such a token" in unknown.stderr


async def test_who_may_not_list_secrets_is_told_of_suspend(broker: BrokerProcess, tenant: Tenant) -> None:
    """The refusal names the right, and the way that needs none of it; that way works."""
    client = await tenant.ready_client("web")
    await broker.until_ready(client.id)
    token = (await asked(broker, client))["token"]
    user = await User.create(tenant, "on-call", CLIENTS)
    kubeconfig = tenant.cluster.kubeconfig_for(user.token)
    place = ("-n", tenant.namespace, "web")
    refused = await command_with(kubeconfig, "client", "revoke-all", *place)
    suspended = await command_with(kubeconfig, "client", "suspend", *place)

    assert refused.code == 1
    assert "you may not list Secrets" in refused.stderr
    assert "needs list and delete on secrets" in refused.stderr
    assert f"`tokenbroker client suspend -n {tenant.namespace} web`" in refused.stderr
    assert suspended.code == 0, suspended.stderr
    await until_refused(tenant, token)


async def test_a_client_that_the_broker_holds_is_not_taken_apart(
    tenant: Tenant, broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the TokenClient waits for its tokens to end, the broker's Role stays; a second run ends the removal."""
    path = f"{tenant.path}/web"
    await tenant.cluster.request("POST", f"/api/v1/namespaces/{tenant.namespace}/serviceaccounts", named("web"))
    place = ("-n", tenant.namespace)
    added = await command_with(tenant.cluster.kubeconfig, "client", "add", "web", "--service-account", "web", *place)
    assert added.code == 0, added.stderr
    await broker.until_ready(f"{tenant.namespace}/web")
    held = {"metadata": {"finalizers": ["tokenbroker.dev/anchors", "example.com/held"]}}
    await tenant.cluster.request("PATCH", path, held)
    monkeypatch.setattr(removing, "WAIT_SECONDS", 1.5)
    first = await command_with(tenant.cluster.kubeconfig, "client", "remove", "web", "--yes", *place)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{tenant.namespace}/roles/tokenbroker-mint-web"
    kept = (await tenant.cluster.request("GET", role))[0]
    await tenant.cluster.request("PATCH", path, {"metadata": {"finalizers": None}})
    second = await command_with(tenant.cluster.kubeconfig, "client", "remove", "web", "--yes", *place)

    assert (first.code, kept) == (4, 200)
    assert "has not let it go within 1.5 s" in first.stderr
    assert "Run this command again" in first.stderr
    assert second.code == 0, second.stderr
    assert (await tenant.cluster.request("GET", role))[0] == 404


def named(name: str) -> dict[str, Any]:
    """Return an object's body with a name and nothing else."""
    return {"metadata": {"name": name}}
