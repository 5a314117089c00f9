"""A broker that is started before what it needs: it lives, says what it waits for, and needs nobody when that comes."""

import aiohttp
import pytest
import yaml

from tests.support.broker import ROOT, BrokerProcess, Tenant
from tests.support.cluster import Cluster
from tests.support.lab import Lab
from tests.support.marks import own_cluster
from tests.support.processes import until

OVERLAY = ROOT / "tests" / "deploy"


async def health(broker: BrokerProcess, which: str) -> tuple[int, str]:
    """Return what /livez or /readyz says."""
    async with aiohttp.ClientSession() as session, session.get(f"{broker.ops_url}/{which}") as answer:
        return answer.status, await answer.text()


async def until_waiting(broker: BrokerProcess, *words: str) -> None:
    """Wait until a broker says that it waits for this, and see that it lives meanwhile."""

    async def says() -> bool:
        try:
            status, text = await health(broker, "readyz")
        except aiohttp.ClientError:
            return False
        return status == 503 and all(word in text for word in words)

    await until(says, what=f"not ready: {words}", seconds=60, programs=(broker.program,))
    assert (await health(broker, "livez"))[0] == 200


async def apply(cluster: Cluster, *kinds: str) -> None:
    """Apply those objects of the overlay that are of some kinds."""
    rendered = yaml.safe_load_all(await cluster.kubectl("kustomize", str(OVERLAY)))
    await cluster.apply(yaml.safe_dump_all([one for one in rendered if one["kind"] in kinds]))


@own_cluster
async def test_everything_may_come_after_the_broker() -> None:
    """The API server, the broker's rights, the CustomResourceDefinition, the policies: what is missing is named."""
    async with Lab.start(own=True) as lab:
        cluster = lab.cluster
        await apply(cluster, "Namespace", "ServiceAccount")
        async with BrokerProcess.start_unready(lab, "early", lease={"name": "tokenbroker-leader"}) as broker:
            pid = broker.program.pid
            await cluster.api_server.stop()
            await until_waiting(broker, "registry_stale: registered clients", "onnect")
            cluster.api_server.start()
            await cluster.ready()
            await until_waiting(broker, "registry_stale: registered clients", "forbidden")
            await apply(cluster, "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
            await until_waiting(broker, "registry_stale: registered clients", "404")
            await apply(cluster, "CustomResourceDefinition")
            await until_waiting(broker, "policy_missing")
            await apply(cluster, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
            await until(lambda: _ready(broker), what="it is ready", seconds=120, programs=(broker.program,))
            tenant = await Tenant.create(cluster, "early")
            client = await tenant.ready_client("reader")
            reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

            assert reply.status == 200
            assert broker.program.pid == pid
            assert broker.program.running


async def test_vault_may_come_after_the_broker(installed: Lab, tenant: Tenant) -> None:
    """Sealed at the start: the broker is ready and issues, and writes the copy when Vault is there."""
    await installed.vault.seal()
    try:
        async with BrokerProcess.start(installed, "without-vault") as broker:
            await tenant.account("reader")
            client = await tenant.client("reader", {"serviceAccount": {"name": "reader"}, "vault": {}})
            await until(lambda: _issues(broker, client.auth), what="it issues", programs=(broker.program,))
            sealed = await tenant.condition("reader", "VaultSynced")
            ready = await health(broker, "readyz")
            await installed.vault.unseal()

            async def synced() -> bool:
                return (await tenant.condition("reader", "VaultSynced")).get("status") == "True"

            await until(synced, what="the copy is there", seconds=120, programs=(broker.program,))
    finally:
        await installed.vault.unseal()

    assert ready[0] == 200
    assert sealed.get("status") != "True"


@pytest.mark.parametrize("missing", ["token", "vault-token"])
async def test_a_file_that_is_missing_ends_the_start_and_is_named(installed: Lab, missing: str) -> None:
    """The kubelet starts no container before its volumes are there, so this is a wrong configuration: 2, and which."""
    name = f"missing-{missing}"
    async with BrokerProcess.start(installed, name) as broker:
        await broker.program.stop()
        (broker.folder / missing).unlink()
        broker.program.start()
        await until(lambda: _ended(broker), what="it ends")
        code = broker.program.code
        log = broker.program.log.read_text()

    assert code == 2
    assert f"{'kubernetes' if missing == 'token' else 'vault'}.token_file: cannot be read: No such file" in log


async def _ended(broker: BrokerProcess) -> bool:
    return not broker.program.running


async def _ready(broker: BrokerProcess) -> bool:
    return (await health(broker, "readyz"))[0] == 200


async def _issues(broker: BrokerProcess, auth: tuple[str, str]) -> bool:
    return (await broker.call("POST", "/v1/tokens", {}, auth=auth)).status == 200
