"""All locks, with the broker in another namespace and under another name: on a cluster of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.broker import ROOT, Tenant, token_client
from tests.support.cluster import Cluster
from tests.support.installed import install
from tests.support.locks import Thief, assert_held, assert_passed

OVERLAY = ROOT / "tests" / "deploy" / "elsewhere"
ACCOUNT = ("elsewhere", "minter")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stranger() -> AsyncIterator[Thief]:
    """Return a thief of that broker's credential."""
    async with Cluster.start(own=True) as cluster:
        await install(cluster, OVERLAY, ACCOUNT)
        yield await Thief.steal(await Tenant.create(cluster, "shop", ACCOUNT))


async def test_it_makes_anchors_and_mints(stranger: Thief) -> None:
    """The broker can work there: its anchor was made, and a token is."""
    assert_passed(await stranger.mint(), 201)


async def test_it_mints_no_unbound_token(stranger: Thief) -> None:
    """Lock 2 knows who it is."""
    assert_held(await stranger.mint(boundObjectRef=None), "tokenbroker-tokens", "bound to an anchor")


async def test_it_mints_nothing_in_its_own_namespace(stranger: Thief) -> None:
    """Lock 2 knows where it is; its name is not tokenbroker."""
    path = "/api/v1/namespaces/elsewhere/serviceaccounts/tokenbroker-canary/token"

    assert_held(await stranger.call("POST", path, {"spec": {}}), "tokenbroker-tokens", "of its own namespace")


async def test_it_makes_no_secret_but_an_anchor(stranger: Thief) -> None:
    """Lock 2 knows who it is here, too."""
    assert_held(await stranger.make({"metadata": {"name": "mine"}}), "tokenbroker-secrets", "creates anchors only")


async def test_it_changes_no_client(stranger: Thief) -> None:
    """And here."""
    tenant = stranger.tenant
    body = token_client("shop", "web", grants=[{"serviceAccount": {"name": "reader"}, "vault": {}}])
    assert_passed(await tenant.cluster.request("POST", tenant.path, body), 201)

    assert_held(await stranger.call("PATCH", f"{tenant.path}/web", {"spec": {"suspend": True}}), "tokenbroker-clients")


async def test_nothing_is_registered_in_its_own_namespace(stranger: Thief) -> None:
    """Lock 3 knows where it is; a namespace called tokenbroker is one as any other."""
    cluster = stranger.tenant.cluster
    tenants = [await Tenant.create(cluster, name) for name in ("elsewhere", "tokenbroker")]
    own, other = [
        await cluster.request(
            "POST",
            tenant.path,
            token_client(tenant.namespace, "x", grants=[{"serviceAccount": {"name": "x"}, "vault": {}}]),
        )
        for tenant in tenants
    ]

    assert_held(own, "tokenbroker-registration", "never granted")
    assert_passed(other, 201)


async def test_nobody_else_makes_an_anchor(stranger: Thief) -> None:
    """Lock 4 exempts that broker, and not one called as it usually is."""
    tenant = stranger.tenant
    usual = ("--as=system:serviceaccount:tokenbroker:tokenbroker", "--as-group=system:masters")
    name = "tokenbroker-anchor-future"
    with pytest.raises(Exception, match="tokenbroker-anchors"):
        await tenant.cluster.kubectl("create", "secret", "generic", name, "-n", tenant.namespace, *usual)
