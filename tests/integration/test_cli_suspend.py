"""``client suspend`` and ``resume`` end when the broker has shown that it has seen them, and not before."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from tests.integration.test_cli_revoke import CLIENTS, asked, until_refused
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.command import Ended, command_with
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.locks import User
from tests.support.processes import until


@dataclass(frozen=True, slots=True)
class Alone:
    """A client of a broker that can be stopped: nobody else needs it."""

    broker: BrokerProcess
    tenant: Tenant
    client: Registered

    async def run(self, *words: str) -> Ended:
        """Run ``tokenbroker client`` as cluster admin."""
        return await command_with(self.tenant.cluster.kubeconfig, "client", *words)


@pytest_asyncio.fixture(loop_scope="session")
async def alone() -> AsyncIterator[Alone]:
    """Start a cluster and a broker of the test's own."""
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        async with BrokerProcess.start(lab) as broker:
            tenant = await Tenant.create(lab.cluster, "shop")
            client = await tenant.ready_client("web", vault={})
            await broker.until_ready(client.id)
            yield Alone(broker, tenant, client)


async def test_suspending_is_done_when_the_broker_has_seen_it(broker: BrokerProcess, tenant: Tenant) -> None:
    """Then nothing is issued, no anchor is left and the status says so; resumed, it is served when the command ends."""
    client = await tenant.ready_client("web")
    await broker.until_ready(client.id)
    token = (await asked(broker, client))["token"]
    suspended = await command_with(tenant.cluster.kubeconfig, "client", "suspend", client.id)
    refused, condition = await asked(broker, client), await tenant.condition("web")
    await until_refused(tenant, token)
    resumed = await command_with(tenant.cluster.kubeconfig, "client", "resume", client.id)
    served = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

    assert (suspended.code, suspended.stdout) == (0, ""), suspended.stderr
    assert suspended.stderr.startswith(f"suspended: {client.id}; the broker has ended its tokens")
    assert (refused["code"], condition["reason"]) == ("client_suspended", "Suspended")
    assert resumed.code == 0, resumed.stderr
    assert served.status == 200, served.body


async def test_the_copy_in_vault_is_shown_as_what_it_is(broker: BrokerProcess, tenant: Tenant) -> None:
    """While the client is suspended it is not synced and good until no time; resumed, there is a new version."""
    client = await tenant.ready_client("web", vault={})
    await broker.until_ready(client.id)
    await until(lambda: _synced(tenant), what="a token is in Vault")
    before = await _kept(tenant)
    await command_with(tenant.cluster.kubeconfig, "client", "suspend", client.id)
    during, condition = await _kept(tenant), await tenant.condition("web", "VaultSynced")
    listed = await command_with(tenant.cluster.kubeconfig, "client", "list", "-n", tenant.namespace)
    await command_with(tenant.cluster.kubeconfig, "client", "resume", client.id)

    async def replaced() -> bool:
        return await _synced(tenant) and (await _kept(tenant))["version"] > before["version"]

    assert (condition["status"], condition["reason"]) == ("False", "Suspended")
    assert during == {"path": before["path"], "version": before["version"]}
    assert listed.stdout.splitlines()[1].split()[2:6] == ["False", "Suspended", "default", "-"]
    await until(replaced, what="Vault has a new version")


async def _synced(tenant: Tenant) -> bool:
    return (await tenant.condition("web", "VaultSynced")).get("status") == "True"


async def _kept(tenant: Tenant) -> dict[str, Any]:
    _, found = await tenant.cluster.request("GET", f"{tenant.path}/web")
    kept: dict[str, Any] = found["status"]["grants"][0]["vault"]
    return kept


async def test_without_a_broker_a_suspension_ends_nothing_and_says_so(alone: Alone) -> None:
    """Code 4, and what it names ends the tokens: the one that was handed out and the one in Vault."""
    token = (await asked(alone.broker, alone.client))["token"]
    await alone.broker.program.stop()
    suspended = await alone.run("suspend", alone.client.id, "--wait", "2")
    await asyncio.sleep(12)  # for longer than an API server remembers a token
    pods = f"/api/v1/namespaces/{alone.tenant.namespace}/pods"
    alive = (await alone.tenant.cluster.request("GET", pods, token=token))[0]
    ended = await alone.run("revoke-all", "--now", alone.client.id)

    assert (suspended.code, alive) == (4, 200), suspended.stderr
    assert "no broker has shown within 2 s that it has seen it" in suspended.stderr
    assert "`tokenbroker client revoke-all --now -n shop web` ends them" in suspended.stderr
    assert ended.code == 0, ended.stderr
    await until_refused(alone.tenant, token)
    resumed = await alone.run("resume", alone.client.id, "--wait", "2")
    assert resumed.code == 4, resumed.stderr
    assert "no broker has shown within 2 s that it has seen it" in resumed.stderr


async def test_anchors_that_the_broker_may_not_delete_are_no_success(broker: BrokerProcess, tenant: Tenant) -> None:
    """The status says so, and whoever suspends is told, also who may not list Secrets."""
    client = await tenant.ready_client("web", account="web")
    await broker.until_ready(client.id)
    binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{tenant.namespace}/rolebindings/tokenbroker-mint-web"
    await tenant.cluster.request("DELETE", binding)
    user = await User.create(tenant, "on-call", CLIENTS)
    seen = await command_with(tenant.cluster.kubeconfig, "client", "suspend", client.id, "--wait", "5")
    unseen = await command_with(
        tenant.cluster.kubeconfig_for(user.token), "client", "suspend", client.id, "--wait", "5"
    )

    assert (await tenant.condition("web"))["reason"] == "Suspending"
    assert (seen.code, unseen.code) == (4, 4), seen.stderr + unseen.stderr
    for ended in (seen, unseen):
        assert "the broker has not ended everything within 5 s" in ended.stderr
        assert f"`tokenbroker client revoke-all --now -n {tenant.namespace} web` ends them" in ended.stderr


async def test_only_the_word_that_tokens_have_ended_is_taken_for_it(alone: Alone) -> None:
    """Who may list Secrets does not take even that, while anchors are there; who may not has nothing else."""
    await alone.broker.program.stop()
    user = await User.create(alone.tenant, "on-call", CLIENTS)
    admin, on_call = alone.tenant.cluster.kubeconfig, alone.tenant.cluster.kubeconfig_for(user.token)
    await alone.run("suspend", alone.client.id, "--wait", "0")
    ends = {}
    for reason in ("Suspending", "Suspended", "InvalidSpec"):
        await _say(alone.tenant, reason)
        ends[reason] = [
            await command_with(kubeconfig, "client", "suspend", alone.client.id, "--wait", "2")
            for kubeconfig in (admin, on_call)
        ]
    await alone.run("revoke-all", "--now", alone.client.id)
    without_anchors = await alone.run("suspend", alone.client.id, "--wait", "2")

    codes = {reason: [it.code for it in ended] for reason, ended in ends.items()}
    assert codes == {"Suspending": [4, 4], "Suspended": [4, 0], "InvalidSpec": [4, 4]}
    assert "It says: as it is. Tokens that it was handed live" in ends["Suspending"][1].stderr
    assert "its anchors were still there after 2 s" in ends["Suspended"][0].stderr
    assert "does not say whether it has ended its tokens" in ends["InvalidSpec"][1].stderr
    assert without_anchors.code == 0, without_anchors.stderr


async def _say(tenant: Tenant, reason: str) -> None:
    """Write what a broker would have found of the client as it is."""
    _, found = await tenant.cluster.request("GET", f"{tenant.path}/web")
    generation = found["metadata"]["generation"]
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": reason,
        "message": "as it is.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": generation,
    }
    status = {"observedGeneration": generation, "conditions": [ready]}
    answered, said = await tenant.cluster.request("PATCH", f"{tenant.path}/web/status", {"status": status})
    assert answered == 200, said


async def test_a_client_that_is_resumed_and_not_served_is_told_so(broker: BrokerProcess, tenant: Tenant) -> None:
    """The reason is named, and the code is that of a refusal."""
    client = await tenant.client("web", {"serviceAccount": {"name": "nobody"}}, suspend=True)
    await tenant.allow_minting("nobody")
    await tenant.until_reason("web", "Suspended")
    resumed = await command_with(tenant.cluster.kubeconfig, "client", "resume", client.id, "--wait", "3")

    assert broker.url
    assert resumed.code == 1
    assert f"{client.id} is suspended no more, but nothing is issued for it: ServiceAccountMissing" in resumed.stderr


async def test_nobody_waits_who_does_not_want_to(tenant: Tenant) -> None:
    """With --wait 0 the field is set, and the sentence says what it is worth."""
    client = await tenant.client("web", {"serviceAccount": {"name": "web"}})
    ended = await command_with(tenant.cluster.kubeconfig, "client", "suspend", client.id, "--wait", "0")
    _, found = await tenant.cluster.request("GET", f"{tenant.path}/web")

    assert (ended.code, found["spec"]["suspend"]) == (0, True)
    assert "its tokens live until a broker has seen it" in ended.stderr
