"""``tokenbroker check rbac`` in a cluster of its own: what the broker lacks, and what it has too much."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from tests.support.broker import ACCOUNT, Tenant
from tests.support.cluster import Cluster
from tests.support.command import Ended, command_with
from tests.support.installed_cluster import RBAC, account, bind, group, installed_cluster, opted_in

BROKER = account(*ACCOUNT)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Start a cluster with the release's manifests."""
    async with installed_cluster() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def shop(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Tenant]:
    """Register a client with two accounts, one of which the broker may not mint for; nothing of it stays."""
    tenant = await opted_in(cluster, re.sub("[^a-z]+", "-", request.node.name)[5:60].strip("-"))
    await tenant.account("web")
    await cluster.request("POST", f"/api/v1/namespaces/{tenant.namespace}/serviceaccounts", {"metadata": {"name": "b"}})
    grants = [{"name": "one", "serviceAccount": {"name": "web"}}, {"name": "two", "serviceAccount": {"name": "b"}}]
    await tenant.client("web", *grants)
    yield tenant
    await cluster.request("DELETE", f"{tenant.path}/web")
    for kind in ("roles", "rolebindings"):
        await cluster.request("DELETE", f"{RBAC}/namespaces/{tenant.namespace}/{kind}")


async def _check(cluster: Cluster, *more: str, user: Path | None = None) -> Ended:
    return await command_with(user or cluster.kubeconfig, "check", "rbac", *more)


async def _apply_missing(shop: Tenant) -> str:
    printed = await _check(shop.cluster, "-o", "yaml")
    await shop.cluster.apply(printed.stdout)
    return printed.stdout


async def test_what_is_missing_is_printed_to_apply(shop: Tenant) -> None:
    """The Role names all accounts of the client, and once it is applied nothing is missing or too much."""
    told = await _check(shop.cluster)
    printed = list(yaml.safe_load_all(await _apply_missing(shop)))
    after = await _check(shop.cluster)
    silent = await _check(shop.cluster, "-o", "yaml")

    assert told.code == 1
    assert f"missing: Role {shop.namespace}/tokenbroker-mint-web" in told.stdout
    assert "kubectl apply -f -" in told.stderr
    assert [it["kind"] for it in printed] == ["Role", "RoleBinding"]
    assert printed[0]["rules"][0]["resourceNames"] == ["web", "b"]
    assert (after.code, after.stdout) == (0, "the broker may mint for all 1 clients, and nothing else\n")
    assert (silent.code, silent.stdout) == (0, "")


@pytest.mark.parametrize("verb", ["create", "delete"])
async def test_rights_on_anchors_are_needed_too(shop: Tenant, verb: str) -> None:
    """Minting alone is not enough."""
    await _apply_missing(shop)
    where = f"{RBAC}/namespaces/{shop.namespace}/roles/tokenbroker-mint-web"
    _, role = await shop.cluster.request("GET", where)
    role["rules"][1]["verbs"] = ["delete" if verb == "create" else "create"]
    await shop.cluster.request("PUT", where, role)

    assert f"missing: Role {shop.namespace}/tokenbroker-mint-web" in (await _check(shop.cluster)).stdout


async def test_accounts_that_nobody_registers_are_too_much(shop: Tenant) -> None:
    """The Role of a client that is gone, and one without names."""
    await _apply_missing(shop)
    await shop.allow_minting("left-over")
    told = await _check(shop.cluster, "-n", shop.namespace)

    assert told.code == 1
    where = f"in {shop.namespace}, by RoleBinding tokenbroker-mint-left-over"
    assert f"too much: create serviceaccounts/token/left-over {where}" in told.stdout
    assert f"kubectl edit role tokenbroker-mint-left-over -n {shop.namespace}" in told.stdout
    assert "missing" not in told.stdout


async def test_a_namespace_without_clients_needs_nothing(cluster: Cluster) -> None:
    """Then the whole binding goes."""
    tenant = await opted_in(cluster, "empty")
    await tenant.allow_minting("web")
    told = await _check(cluster, "-n", "empty", "-o", "yaml")
    await cluster.request("DELETE", f"{RBAC}/namespaces/empty/rolebindings/tokenbroker-mint-web")

    assert (told.code, told.stdout) == (1, "")
    for right in ("create secrets", "delete secrets", "create serviceaccounts/token/web"):
        assert right in told.stderr
    assert "kubectl delete rolebinding tokenbroker-mint-web -n empty" in told.stderr


@pytest.mark.parametrize(
    ("namespace", "subject", "told_by"),
    [
        ("", BROKER, "in the whole cluster, by ClusterRoleBinding extra"),
        ("tokenbroker", BROKER, "in tokenbroker, by RoleBinding extra"),
        ("", group("system:serviceaccounts:tokenbroker"), "in the whole cluster, by ClusterRoleBinding extra"),
    ],
)
async def test_other_bindings_of_the_brokers_account_are_too_much(
    cluster: Cluster, namespace: str, subject: dict[str, str], told_by: str
) -> None:
    """To the account or to the group of its namespace, anywhere."""
    path = await bind(cluster, namespace, "extra", ("ClusterRole", "system:node-bootstrapper"), subject)
    told = await _check(cluster)
    await cluster.request("DELETE", path)
    after = await _check(cluster)

    assert told.code == 1
    assert "too much: create certificatesigningrequests.certificates.k8s.io" in told.stdout
    assert told_by in told.stdout
    assert "kubectl delete" in told.stdout
    assert after.code == 0, after.stdout


async def test_more_in_the_brokers_own_role_is_too_much(cluster: Cluster) -> None:
    """Only what the release does not have is named."""
    _, role = await cluster.request("GET", f"{RBAC}/clusterroles/tokenbroker")
    more = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["x"], "verbs": ["get"]}
    url = {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    await cluster.request("PATCH", f"{RBAC}/clusterroles/tokenbroker", {"rules": [*role["rules"], more, url]})
    told = await _check(cluster)
    await cluster.request("PATCH", f"{RBAC}/clusterroles/tokenbroker", {"rules": role["rules"]})

    assert "too much: get /metrics, get secrets/x in the whole cluster" in told.stdout
    assert "kubectl edit clusterrole tokenbroker\n" in told.stdout


async def test_a_role_that_cannot_be_read_is_told(shop: Tenant) -> None:
    """A namespace admin reads no ClusterRoles: what the broker holds by one cannot be said to be right."""
    await _apply_missing(shop)
    await bind(shop.cluster, shop.namespace, "hidden", ("ClusterRole", "view"), BROKER)
    await shop.account("boss", cluster_role="admin")
    boss = shop.cluster.kubeconfig_for(await shop.cluster.token_for(shop.namespace, "boss"))
    told = await _check(shop.cluster, "-n", shop.namespace, user=boss)
    everywhere = await _check(shop.cluster, user=boss)

    assert "whatever the ClusterRole view holds, which could not be read" in told.stdout
    assert everywhere.code == 1
    assert "in the whole cluster" in everywhere.stderr
