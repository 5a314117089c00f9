"""Tokens kept in a real Vault by a real broker, for readers that know nothing of it."""

from datetime import datetime
from typing import Any

from broker.errors import Reason
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.lab import Lab
from tests.support.processes import until


async def kept_client(tenant: Tenant, **vault: Any) -> Registered:
    """Register a client whose token is kept in Vault, and wait until it is there."""
    client = await tenant.ready_client("reader", vault=vault)
    await until(lambda: synced(tenant, "True"), what="the token is in Vault")
    return client


async def synced(tenant: Tenant, status: str) -> bool:
    """Tell whether the VaultSynced condition has a status."""
    return (await tenant.condition("reader", "VaultSynced")).get("status") == status


async def stored(lab: Lab, tenant: Tenant) -> dict[str, Any]:
    """Return what a reader of Vault finds."""
    status, answer = await lab.vault.api("GET", f"secret/data/tokenbroker/lab/{tenant.namespace}/reader/default")
    assert status == 200, answer
    data: dict[str, Any] = answer["data"]
    return data


async def test_a_reader_of_vault_finds_a_token_that_works(broker: BrokerProcess, tenant: Tenant, lab: Lab) -> None:
    """The keys are those of a service-account Secret and more; the token is accepted by the API server."""
    await kept_client(tenant, ttl="1h")

    data = (await stored(lab, tenant))["data"]
    pods = f"/api/v1/namespaces/{tenant.namespace}/pods"

    assert (await lab.cluster.request("GET", pods, token=data["token"]))[0] == 200
    assert set(data) >= {"token", "ca.crt", "namespace", "server", "config", "kubeconfig", "expirationTimestamp"}
    assert data["namespace"] == tenant.namespace
    assert data["token"] not in broker.program.log.read_text() + broker.audit_file.read_text()


async def test_kubectl_shows_when_the_copy_ends_and_is_replaced(
    broker: BrokerProcess, tenant: Tenant, lab: Lab
) -> None:
    """Both are times to come, which a column of Kubernetes' type date would show as invalid."""
    assert broker.url
    await kept_client(tenant, ttl="1h")

    shown = await lab.cluster.kubectl("get", "tokenclients", "-n", tenant.namespace)
    expires = (await stored(lab, tenant))["data"]["expirationTimestamp"]
    heading, row = (line.split() for line in shown.splitlines())

    assert heading == ["NAME", "READY", "REASON", "VAULT-EXPIRES", "RENEWS", "AGE"]
    assert row[:4] == ["reader", "True", "Ready", expires]
    assert datetime.fromisoformat(row[4]) < datetime.fromisoformat(expires)


async def test_delivery_on_demand_writes_a_new_version_and_both_work(
    broker: BrokerProcess, tenant: Tenant, lab: Lab
) -> None:
    """The answer has path and version instead of the token; readers of the version before see no 401."""
    client = await kept_client(tenant, ttl="1h")
    before = await stored(lab, tenant)

    reply = await broker.call("POST", "/v1/tokens", {"deliver": "vault"}, auth=client.auth)

    after = await stored(lab, tenant)
    pods = f"/api/v1/namespaces/{tenant.namespace}/pods"
    assert reply.status == 200
    assert "token" not in reply.body
    assert reply.body["vault"] == {
        "path": f"secret/tokenbroker/lab/{tenant.namespace}/reader/default",
        "version": before["metadata"]["version"] + 1,
    }
    assert after["metadata"]["version"] == reply.body["vault"]["version"]
    assert after["data"]["token"] != before["data"]["token"]
    for version in (before, after):
        assert (await lab.cluster.request("GET", pods, token=version["data"]["token"]))[0] == 200


async def test_removing_the_client_removes_its_copy(broker: BrokerProcess, tenant: Tenant, lab: Lab) -> None:
    """Nothing of it stays in Vault."""
    await kept_client(tenant, ttl="1h")
    await tenant.cluster.request("DELETE", f"{tenant.path}/reader")

    async def gone() -> bool:
        path = f"secret/metadata/tokenbroker/lab/{tenant.namespace}/reader/default"
        return (await lab.vault.api("GET", path))[0] == 404

    await until(gone, what="the copy is gone", programs=(broker.program,))
    assert await gone()


async def test_a_sealed_vault_stops_delivery_but_not_issuing(broker: BrokerProcess, tenant: Tenant, lab: Lab) -> None:
    """Tokens go on over HTTP; deliver: vault is a 503, and the condition says why until Vault is back."""
    client = await kept_client(tenant, ttl="1h")
    await lab.vault.seal()
    try:
        delivered = await broker.call("POST", "/v1/tokens", {"deliver": "vault"}, auth=client.auth)
        issued = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        await until(lambda: synced(tenant, "False"), what="the condition says so")
        condition = await tenant.condition("reader", "VaultSynced")
    finally:
        await lab.vault.unseal()
    await until(lambda: synced(tenant, "True"), what="Vault is in use again", seconds=60)

    assert (delivered.status, delivered.body["code"]) == (503, Reason.VAULT_UNAVAILABLE)
    assert "Retry-After" in delivered.headers
    assert issued.status == 200
    assert condition["reason"] == "VaultUnavailable"


async def test_a_path_that_somebody_else_uses_is_left_alone(broker: BrokerProcess, tenant: Tenant, lab: Lab) -> None:
    """The broker never writes over what it did not make, and says so."""
    path = f"tokenbroker/lab/{tenant.namespace}/reader/default"
    await lab.vault.api("POST", f"secret/data/{path}", {"data": {"mine": "yes"}})
    await tenant.ready_client("reader", vault={})

    await until(lambda: synced(tenant, "False"), what="the conflict is noticed", programs=(broker.program,))

    assert (await stored(lab, tenant))["data"] == {"mine": "yes"}
    assert (await tenant.condition("reader", "VaultSynced"))["reason"] == "VaultPathTaken"
