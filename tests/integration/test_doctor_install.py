"""``tokenbroker doctor --install`` about the cluster: its schema, policies and rights, harmed on purpose."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.cli.doctor.policies import POLICIES
from tests.support.broker import ACCOUNT, Tenant
from tests.support.doctor import bound_token, doctor
from tests.support.installed_cluster import RBAC, account, bind
from tests.support.processes import until
from tests.support.world import LEASE, World

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tokenclients.tokenbroker.dev"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world() -> AsyncIterator[World]:
    """Start all of it."""
    async with World.start() as running:
        yield running


async def test_an_installation_that_is_well(world: World) -> None:
    """Only the cluster's audit policy cannot be seen, and the rules to add are told."""
    told = await world.ask()
    without_options = await doctor(world.cluster)

    assert told.problems == set()
    assert told.code == 0
    assert {it["id"] for it in told.findings if it["state"] == "cannot tell"} == {"audit.policy"}
    rules = yaml.safe_load(told.one("audit.policy")["mend"])
    assert rules[0]["level"] == "Metadata"
    assert [it["resources"] for it in rules[0]["resources"]] == [["serviceaccounts/token"], ["tokenreviews"]]
    assert {"certificate.broker", "certificate.api-server", "clock.broker", "clock.vault", "clock.api-server"} <= {
        it["id"] for it in told.findings
    }
    assert "maximumSeconds: 86400" in told.text("policy.tokenbroker-tokens")
    assert without_options.state("vault.reachable") == "cannot tell"
    assert without_options.problems == {"certificate.broker"}, "the system's CAs do not know the test's"


async def test_a_crd_of_another_release(world: World) -> None:
    """The places that differ are named."""

    def older(crd: dict[str, Any]) -> None:
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        del schema["owner"]

    async with world.changed(CRD, older):
        told = await world.ask()

    assert "crd.schema" in told.problems
    assert "openAPIV3Schema.properties.spec.properties.owner" in told.text("crd.schema")


@pytest.mark.parametrize("kind", ["validatingadmissionpolicies", "validatingadmissionpolicybindings"])
async def test_policies_or_bindings_that_are_missing(world: World, kind: str) -> None:
    """Each of the five, and its binding."""
    async with AsyncExitStack() as gone:
        for name in POLICIES:
            await gone.enter_async_context(world.without(f"{ADMISSION}/{kind}/{name}"))
        told = await world.ask()
    await world.in_force()

    what = "policy" if kind.endswith("policies") else "binding"
    for name in POLICIES:
        assert f"the {what} is missing" in told.text(f"policy.{name}")
        assert "kubectl apply -k" in told.text(f"policy.{name}")


def _ignoring(policy: dict[str, Any]) -> None:
    policy["spec"]["failurePolicy"] = "Ignore"


def _other_account(policy: dict[str, Any]) -> None:
    for it in policy["spec"]["matchConditions"]:
        it["expression"] = it["expression"].replace("tokenbroker:tokenbroker", "elsewhere:tokenbroker")


def _toothless(policy: dict[str, Any]) -> None:
    policy["spec"]["validations"][0]["expression"] = "true"


def _narrower(policy: dict[str, Any]) -> None:
    policy["spec"]["matchConstraints"]["namespaceSelector"] = {"matchLabels": {"a": "b"}}


def _longer(policy: dict[str, Any]) -> None:
    policy["spec"]["validations"].append({"expression": "true"})


async def test_policies_that_were_changed(world: World) -> None:
    """Whatever was changed about one, it is not the release's any more."""
    changes = {
        "tokenbroker-tokens": (_ignoring, "its failurePolicy is Ignore"),
        "tokenbroker-secrets": (_other_account, "not matched to system:serviceaccount:tokenbroker:tokenbroker"),
        "tokenbroker-clients": (_toothless, "spec.validations[0].expression"),
        "tokenbroker-registration": (_narrower, "spec.matchConstraints.namespaceSelector"),
        "tokenbroker-anchors": (_longer, "spec.validations"),
    }
    async with AsyncExitStack() as changed:
        for name, (change, _) in changes.items():
            await changed.enter_async_context(world.changed(f"{ADMISSION}/validatingadmissionpolicies/{name}", change))
        told = await world.ask()
    await world.in_force()

    for name, (_, told_by) in changes.items():
        assert told_by in told.one(f"policy.{name}")["text"]


async def test_what_an_overlay_chooses_is_no_change(world: World) -> None:
    """Audiences and the longest life are the operator's."""

    def chosen(policy: dict[str, Any]) -> None:
        policy["spec"]["variables"][1]["expression"] = "3600"

    async with world.changed(f"{ADMISSION}/validatingadmissionpolicies/tokenbroker-tokens", chosen):
        told = await world.ask()

    assert "maximumSeconds: 3600" in told.text("policy.tokenbroker-tokens")
    assert told.problems == set()


@pytest.mark.parametrize(
    ("change", "told_by"),
    [
        ({"validationActions": ["Audit"]}, "and not only Deny"),
        ({"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}, "binding.spec.matchResources"),
    ],
)
async def test_a_binding_that_was_changed(world: World, change: dict[str, Any], told_by: str) -> None:
    """One that only warns, or that holds in some namespaces only."""
    path = f"{ADMISSION}/validatingadmissionpolicybindings/tokenbroker-anchors"
    async with world.changed(path, lambda binding: binding["spec"].update(change)):
        told = await world.ask()

    assert told_by in told.text("policy.tokenbroker-anchors")


@pytest.mark.parametrize("name", ["tokenbroker-secrets", "tokenbroker-tokens"])
async def test_a_policy_that_is_not_in_force_is_seen_by_trying(world: World, name: str) -> None:
    """What must be refused in the broker's name is let pass."""
    async with world.without(f"{ADMISSION}/validatingadmissionpolicybindings/{name}"):

        async def passes() -> bool:
            return f"policy.{name}.tried" in (await world.ask()).problems

        await until(passes, what="the API server has forgotten the binding")
        assert await passes()
    await world.in_force()


async def test_who_may_look_at_nothing_is_told_so(world: World) -> None:
    """Nothing is a problem that could not be seen."""
    await bound_token(world.cluster, "default", "nobody", "nobody")
    nobody = world.cluster.kubeconfig_for(await world.cluster.token_for("default", "nobody"))
    told = await world.ask(user=nobody, vault_token="")

    assert told.problems == set()
    unclear = {it["id"] for it in told.findings if it["state"] == "cannot tell"}
    assert {"crd.schema", "policy.tokenbroker-tokens", "policy.tokenbroker-tokens.tried", "rights.missing"} <= unclear
    assert {"vault.login", "vault.role", "vault.policy", "vault.mount", "certificate.cluster-ca"} <= unclear


async def test_a_right_that_the_broker_lacks(world: World) -> None:
    """The rights are named, with the place."""
    path = f"{RBAC}/clusterroles/tokenbroker"
    async with world.changed(path, lambda role: role["rules"].pop(1)):
        told = await world.ask()
    async with world.without(f"{RBAC}/namespaces/tokenbroker/rolebindings/tokenbroker-lease"):
        unbound = await world.ask()

    assert "patch tokenclients.tokenbroker.dev/status in the whole cluster" in told.text("rights.missing")
    assert f"update leases.coordination.k8s.io/{LEASE} in tokenbroker" in unbound.text("rights.missing")


async def test_a_right_that_is_too_much(world: World) -> None:
    """Any other binding of the broker's account is told, with the line that takes it away."""
    path = await bind(world.cluster, "", "extra", ("ClusterRole", "system:node-bootstrapper"), account(*ACCOUNT))
    told = await world.ask()
    await world.cluster.request("DELETE", path)

    assert told.problems == {"rights.too-much"}
    assert "kubectl delete clusterrolebinding extra" in told.text("rights.too-much")


async def _removed(tenant: Tenant, client: str) -> None:
    """Delete a client and wait until the broker has let it go."""

    async def gone() -> bool:
        return (await tenant.cluster.request("GET", f"{tenant.path}/{client}"))[0] == 404

    await tenant.cluster.request("DELETE", f"{tenant.path}/{client}")
    await until(gone, what=f"{client} is gone")


async def test_a_client_that_the_broker_may_not_mint_for(world: World) -> None:
    """The namespaces are named."""
    tenant = await Tenant.create(world.cluster, "lacking")
    client = {"serviceAccount": {"name": "web"}}
    await tenant.client("web", client)
    told = await world.ask()
    await _removed(tenant, "web")

    assert told.problems == {"rights.mint"}
    assert "lacking" in told.text("rights.mint")


async def test_a_client_that_no_broker_looks_at(world: World) -> None:
    """A status of another generation tells of a broker that does not run, and one without conditions is no problem."""
    tenant = await Tenant.create(world.cluster, "unseen")
    await tenant.account("web")
    await world.broker.program.stop()
    try:
        await tenant.client("web", {"serviceAccount": {"name": "web"}})
        told = await doctor(world.cluster, "--client", "unseen/web")
    finally:
        world.broker.program.start()
        await world.broker.ready()
        await _removed(tenant, "web")
        await world.cluster.request("DELETE", f"{RBAC}/namespaces/unseen/rolebindings")

    assert told.problems == {"client.observed"}
    assert "it does not run" in told.text("client.observed")
