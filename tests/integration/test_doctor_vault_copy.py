"""``tokenbroker doctor --client`` about the copy in Vault: each fault is caused in a real OpenBao."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from broker.model.times import timestamp
from tests.support.broker import BrokerProcess, Tenant
from tests.support.doctor import Told, doctor
from tests.support.lab import Lab
from tests.support.processes import until


@pytest_asyncio.fixture(loop_scope="session")
async def kept(tenant: Tenant, broker: BrokerProcess) -> AsyncIterator[str]:
    """Register a client whose token is kept in Vault, and return the path of the metadata."""
    assert broker.url
    await tenant.account("web")
    await tenant.client("web", {"serviceAccount": {"name": "web"}, "vault": {}})

    async def synced() -> bool:
        return (await tenant.condition("web", "VaultSynced")).get("status") == "True"

    await until(synced, what="the token is in Vault")
    yield f"secret/metadata/tokenbroker/lab/{tenant.namespace}/web/default"
    await tenant.cluster.request("DELETE", f"{tenant.path}/web")


async def _ask(tenant: Tenant, lab: Lab, token: str | None = None) -> Told:
    where = ("--client", f"{tenant.namespace}/web")
    return await doctor(tenant.cluster, *where, vault=lab.vault, vault_token=token)


async def test_a_copy_that_is_well(tenant: Tenant, lab: Lab, kept: str) -> None:
    """Its path, version and expiry; without a Vault, or a token for it, it cannot be told."""
    told = await _ask(tenant, lab)
    nowhere = await doctor(tenant.cluster, "--client", f"{tenant.namespace}/web")
    nobody = await _ask(tenant, lab, token="")

    assert told.problems == set()
    assert f"version 1 for the grant default is at {kept.replace('/metadata', '')}" in told.text("grant.vault")
    assert "set VAULT_ADDR" in nowhere.text("grant.vault")
    assert nobody.state("grant.vault") == "cannot tell"
    assert "VAULT_TOKEN" in nobody.text("grant.vault")


async def test_a_copy_that_was_removed(tenant: Tenant, lab: Lab, kept: str) -> None:
    """With the line that has the broker write another one."""
    await lab.vault.api("DELETE", kept)
    told = await _ask(tenant, lab)

    assert told.problems == {"grant.vault"}
    assert "nothing is at" in told.text("grant.vault")
    line = f"kubectl annotate tokenclient web -n {tenant.namespace} --overwrite tokenbroker.dev/rotate-requested="
    assert line in told.text("grant.vault")


@pytest.mark.parametrize("how", ["delete", "destroy"])
async def test_a_version_that_was_deleted(tenant: Tenant, lab: Lab, kept: str, how: str) -> None:
    """Softly or for good."""
    await lab.vault.api("PUT", kept.replace("/metadata/", f"/{how}/"), {"versions": [1]})
    told = await _ask(tenant, lab)

    assert "version 1 of secret/tokenbroker" in told.text("grant.vault")
    assert "was deleted" in told.text("grant.vault")


async def test_a_path_that_is_somebody_elses(tenant: Tenant, lab: Lab, kept: str) -> None:
    """The broker leaves it alone."""
    await lab.vault.api("POST", kept, {"custom_metadata": {"owner": "somebody"}})
    told = await _ask(tenant, lab)

    assert "is not this client's" in told.text("grant.vault")
    assert "vault kv metadata delete secret/tokenbroker/lab" in told.text("grant.vault")


async def test_a_copy_that_somebody_wrote_over(tenant: Tenant, lab: Lab, kept: str) -> None:
    """The versions are compared."""
    await lab.vault.api("POST", kept.replace("/metadata/", "/data/"), {"data": {"token": "x"}})
    told = await _ask(tenant, lab)

    assert "has version 2, and the broker knows of 1" in told.text("grant.vault")


async def test_a_copy_that_has_expired(tenant: Tenant, lab: Lab, kept: str) -> None:
    """By what is written beside it, as when nobody has renewed it."""
    _, found = await lab.vault.api("GET", kept)
    ended = timestamp(datetime.now(UTC) - timedelta(hours=1))
    await lab.vault.api("POST", kept, {"custom_metadata": found["data"]["custom_metadata"] | {"expires-at": ended}})
    told = await _ask(tenant, lab)

    assert told.problems == {"grant.vault"}
    assert "expired at" in told.text("grant.vault")
    assert "1h ago" in told.text("grant.vault")


async def test_a_sealed_vault_says_nothing_of_the_copy(tenant: Tenant, lab: Lab, kept: str) -> None:
    """Then Vault is the problem."""
    assert kept
    await lab.vault.seal()
    try:
        told = await _ask(tenant, lab)
    finally:
        await lab.vault.unseal()

    assert "vault.reachable" in told.problems
    assert told.state("grant.vault") == ""


async def test_a_copy_whose_token_was_ended(tenant: Tenant, lab: Lab, kept: str) -> None:
    """It is where and what the broker wrote, and good for nothing."""
    assert kept
    await tenant.patch("web", {"suspend": True})
    await tenant.until_reason("web", "Suspended")
    told = await _ask(tenant, lab)

    assert "its token was ended" in told.text("grant.vault")
    assert f"tokenbroker client resume {tenant.namespace}/web" in told.text("client.VaultSynced")


async def test_a_copy_that_was_not_written_yet(tenant: Tenant, lab: Lab, kept: str) -> None:
    """The status knows of none."""
    assert kept
    grants = [{"name": "default", "ready": False}]
    other = {"spec": {"suspend": True, "grants": [{"name": "new", "serviceAccount": {"name": "web"}, "vault": {}}]}}
    await tenant.cluster.request("PATCH", f"{tenant.path}/web", other)
    await tenant.cluster.request("PATCH", f"{tenant.path}/web/status", {"status": {"grants": grants}})
    told = await _ask(tenant, lab)

    assert "the broker has not written one yet" in told.text("grant.vault")
    assert "tokenbroker doctor --install" in told.text("grant.vault")
