"""``tokenbroker check access``: who outside may do what here, for auditors."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from broker.cli.check.access_view import harmless
from tests.support.broker import Tenant, token_client
from tests.support.cluster import Cluster
from tests.support.command import Ended, command_with
from tests.support.installed_cluster import RBAC, account, bind, group, installed_cluster, opted_in


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Start a cluster with the release's manifests."""
    async with installed_cluster() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def shop(cluster: Cluster) -> AsyncIterator[Tenant]:
    """Register one client, whose account has a Role of the namespace."""
    tenant = await opted_in(cluster, "shop")
    await tenant.account("web")
    oidc = {"issuer": "https://issuer.example", "claims": {"repository_id": ["1"]}}
    body = token_client(
        "shop",
        "web",
        owner='=HYPERLINK("http://evil.example";"x")',
        authentication=[{"clientSecret": {"digests": [f"sha256:{'0' * 64}"]}}, {"oidc": oidc}],
        grants=[
            {"name": "read", "serviceAccount": {"name": "web"}, "audiences": ["=1+1"], "ttl": {"max": "2h"}},
            {"name": "kept", "serviceAccount": {"name": "web"}, "vault": {}},
        ],
    )
    status, answer = await cluster.request("POST", tenant.path, body)
    assert status == 201, answer
    yield tenant
    await cluster.request("DELETE", f"{tenant.path}/web")


async def _check(cluster: Cluster, *more: str) -> Ended:
    return await command_with(cluster.kubeconfig, "check", "access", *more)


async def _rows(cluster: Cluster, *more: str) -> dict[str, dict[str, str]]:
    ended = await _check(cluster, "-o", "csv", *more)
    assert ended.code == 0, ended.stderr
    return {row["grant"]: row for row in csv.DictReader(io.StringIO(ended.stdout))}


async def test_each_grant_is_a_line(shop: Tenant) -> None:
    """Who proves it how, for which account, how long and for whom."""
    found = await _rows(shop.cluster)

    assert set(found) == {"read", "kept"}
    assert found["read"]["client"] == "shop/web"
    assert found["read"]["proved_by"].startswith("clientSecret: 1 digest; oidc: a JWT of https://issuer.example")
    assert "repository_id = 1" in found["read"]["proved_by"]
    assert (found["read"]["account"], found["read"]["max_ttl"]) == ("web", "2h")
    assert (found["kept"]["audiences"], found["kept"]["vault"]) == ("the API server", "wanted, not there yet")
    assert found["read"]["vault"] == "none"
    assert found["read"]["condition"] == "not looked at yet"


async def test_the_status_is_told(shop: Tenant) -> None:
    """The path in Vault, and how the client last was."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": "2026-11-25T09:00:00Z",
    }
    grants = [{"name": "kept", "ready": True, "vault": {"path": "secret/tokenbroker/lab/shop/web/kept", "version": 1}}]
    status: dict[str, Any] = {"status": {"conditions": [ready], "grants": grants}}
    await shop.cluster.request("PATCH", f"{shop.path}/web/status", status)
    found = (await _rows(shop.cluster))["kept"]

    assert found["vault"] == "secret/tokenbroker/lab/shop/web/kept"
    assert found["condition"] == "Ready since 2026-11-25T09:00:00Z"


async def test_rights_are_resolved_through_roles_and_groups(shop: Tenant) -> None:
    """The account's own bindings, those of its groups, elsewhere and in the whole cluster."""
    cluster = shop.cluster
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"], "verbs": ["get", "list"]}]
    await cluster.request("POST", f"{RBAC}/namespaces/default/roles", {"metadata": {"name": "r"}, "rules": rules})
    urls = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    await cluster.request("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "scrape"}, "rules": urls})
    paths = [
        await bind(cluster, "default", "own", ("Role", "r"), account("shop", "web")),
        await bind(cluster, "", "all-of-shop", ("ClusterRole", "scrape"), group("system:serviceaccounts:shop")),
        await bind(cluster, "shop", "lost", ("Role", "nowhere"), group("system:serviceaccounts")),
    ]
    found = (await _rows(cluster))["read"]
    here = (await _rows(cluster, "-n", "shop"))["read"]
    for path in paths:
        await cluster.request("DELETE", path)

    assert "get,list deployments of apps named web in default" in found["may"]
    assert "get /metrics in the whole cluster" in found["may"]
    assert "unknown: the Role nowhere cannot be read, or is not there" in found["may"]
    assert "create selfsubjectaccessreviews" in found["may"]
    assert {"ClusterRole view in shop", "Role r in default", "ClusterRole scrape in the whole cluster"} <= set(
        found["through"].split("; ")
    )
    assert "system:basic-user" not in found["through"]
    assert "default" not in here["may"]
    assert "pods" in here["may"]


async def test_strong_accounts_are_called_so(shop: Tenant) -> None:
    """By what makes them strong, and by which right."""
    before = (await _rows(shop.cluster))["read"]["strong"]
    path = await bind(shop.cluster, "shop", "strong", ("ClusterRole", "edit"), account("shop", "web"))
    after = (await _rows(shop.cluster))["read"]["strong"]
    await shop.cluster.request("DELETE", path)

    assert before == "no"
    assert "mints tokens by itself" in after


async def test_no_cell_is_a_formula(shop: Tenant) -> None:
    """Owners and audiences are written by clients: a spreadsheet must take them for text."""
    found = (await _rows(shop.cluster))["read"]

    assert found["owner"] == '\'=HYPERLINK("http://evil.example";"x")'
    assert found["audiences"] == "'=1+1"


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", "a;=1", "a, =1", "a|@x", "a\n=1", "＝1"])  # noqa: RUF001
def test_harmful_cells_become_text(cell: str) -> None:
    """At the start, after white space, after what some reader takes for the end of a cell, and on a new line."""
    safe = harmless(cell)

    assert "'" in safe or not safe.strip().startswith(("=", "+", "-", "@"))
    assert "\n" not in safe


def test_harmless_cells_stay() -> None:
    """A minus inside a word, or an equals sign in a sentence, is no formula."""
    for cell in ("web-1", "a = b", "x@y", '"quoted"'):
        assert harmless(cell) == cell


async def test_auditors_get_a_table_too(shop: Tenant) -> None:
    """Without every single rule, and it says where it did not look."""
    whole = await _check(shop.cluster)
    part = await _check(shop.cluster, "-n", "shop")

    header, first, *_ = whole.stdout.splitlines()
    assert header.split()[:4] == ["CLIENT", "OWNER", "PROVED", "BY"]
    assert first.startswith("shop/web")
    assert "was not looked at" in part.stderr
    assert "was not looked at" not in whole.stderr


async def test_clients_of_vault_alone_are_said_to_be(shop: Tenant) -> None:
    """Nobody proves to be such a client."""
    body = token_client("shop", "quiet", grants=[{"name": "quiet", "serviceAccount": {"name": "web"}, "vault": {}}])
    await shop.cluster.request("POST", shop.path, body)
    found = await _rows(shop.cluster)
    await shop.cluster.request("DELETE", f"{shop.path}/quiet")

    assert found["quiet"]["proved_by"] == "nothing: only readers of Vault"
    assert found["quiet"]["owner"] == "none"
