"""A tenant without rights in the cluster, whose broker a cluster admin holds by the policies alone.

deploy/overlays/tenant is the tenant's, deploy/overlays/tenant-policies the admin's.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.broker import ROOT
from tests.support.cluster import Cluster
from tests.support.kubectl import KubectlError
from tests.support.locks import AUDIENCE, anchor, assert_held, assert_passed
from tests.support.tenant import BROKERS, CORE, SHOP, Shop, admitted

POLICIES = ROOT / "deploy" / "overlays" / "tenant-policies"
ANCHORS = f"{CORE}/secrets?fieldSelector=type%3Dtokenbroker.dev/anchor"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop() -> AsyncIterator[Shop]:
    """Run the tenant's broker where the policies are: it is ready once its canary has found them in force."""
    async with Cluster.start(own=True) as cluster:
        tenant = await admitted(cluster)
        await cluster.kubectl("apply", "-k", str(POLICIES))
        async with Shop.open(cluster, tenant, admission={"policies": "required"}) as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def thief(shop: Shop) -> str:
    """Return the broker's own credential."""
    return await shop.cluster.token_for(BROKERS, "tokenbroker")


async def opt_in(shop: Shop) -> None:
    """Opt the tenant's namespace in, as the admin."""
    await shop.cluster.kubectl("label", "--overwrite", "namespace", SHOP, "tokenbroker.dev/clients=enabled")


async def test_nothing_is_issued_before_the_admin_opts_the_namespace_in(shop: Shop) -> None:
    """The tenant cannot do that himself, and is told what is missing."""
    await shop.serves(503, "kubernetes_rejected")
    await shop.logs("tokenbroker.dev/clients: enabled")

    with pytest.raises(KubectlError, match="cannot patch resource"):
        await shop.kubectl("label", "namespace", SHOP, "tokenbroker.dev/clients=enabled")


async def test_a_token_is_got_and_ends_with_its_client(shop: Shop) -> None:
    """All that the overlay promises holds: its canary has tried the policies, and its anchors are what they ask for."""
    await opt_in(shop)
    token = await shop.token()
    used, _ = await shop.cluster.request("GET", f"{CORE}/pods", token=token)
    await shop.apply(None)
    await shop.serves(401, "invalid_client")
    await shop.until_refused(token)

    assert used == 200
    await shop.apply(shop.client())
    await shop.serves(200)


async def test_the_stolen_credential_makes_and_reads_no_secret(shop: Shop, thief: str) -> None:
    """What a tenant alone cannot promise (docs/registry.md): no token that never ends, and no Secret read."""
    call = shop.cluster.request
    await call("POST", f"{CORE}/secrets", {"metadata": {"name": "foreign"}, "data": {"a": "Yg=="}})
    legacy = {"name": "forged", "annotations": {"kubernetes.io/service-account.name": "reporter"}}
    forged = {"type": "kubernetes.io/service-account-token", "metadata": legacy}
    read = await call("DELETE", f"{CORE}/secrets/foreign?dryRun=All&propagationPolicy=Foreground", token=thief)

    assert_held(await call("POST", f"{CORE}/secrets", forged, token=thief), "tokenbroker-secrets", "anchors only")
    assert_held(read, "tokenbroker-secrets", "deletes anchors only")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"audiences": ["https://vault.example"]}, "one audience"), ({"boundObjectRef": None}, "bound to an anchor")],
)
async def test_the_stolen_credential_mints_within_limits(
    changes: dict[str, Any], words: str, shop: Shop, thief: str
) -> None:
    """One audience of the list, and tokens that can be ended."""
    bound = {"apiVersion": "v1", "kind": "Secret", "name": "tokenbroker-anchor-x"}
    spec = {"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": bound} | changes
    path = f"{CORE}/serviceaccounts/reporter/token"

    assert_held(await shop.cluster.request("POST", path, {"spec": spec}, token=thief), "tokenbroker-tokens", words)


async def test_the_tenant_prepares_and_orphans_no_anchor(shop: Shop) -> None:
    """Lock 4 holds whoever may write Secrets there; deleting anchors is his to do."""
    await opt_in(shop)
    await shop.serves(200)
    token = await shop.cluster.token_for(SHOP, "tenant")
    call = shop.cluster.request
    _, listed = await call("GET", ANCHORS, token=token)
    [grant] = [
        one["metadata"]["name"]
        for one in listed["items"]
        if one["metadata"]["labels"]["tokenbroker.dev/anchor"] == "grant"
    ]
    orphaned = await call("DELETE", f"{CORE}/secrets/{grant}?propagationPolicy=Orphan", token=token)
    made = await call("POST", f"{CORE}/secrets", anchor(name="tokenbroker-anchor-future"), token=token)

    assert_held(orphaned, "tokenbroker-anchors", "not deleted with --cascade=orphan")
    assert_held(made, "tokenbroker-anchors", "only the broker makes anchors")
    assert_passed(await call("DELETE", f"{CORE}/secrets/{grant}", token=token))
    await shop.serves(200)
