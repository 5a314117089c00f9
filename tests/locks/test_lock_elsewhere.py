"""All locks, with the broker in another namespace and under another name: on a cluster of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.broker import ROOT, Tenant, token_client
from tests.support.cluster import Cluster
from tests.support.installed import install
from tests.support.locks import ANCHOR, CLIENT_RULE, Thief, User, assert_held, assert_passed, minting

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


async def test_its_finalizer_is_taken_off_by_it_alone(stranger: Thief) -> None:
    """Lock 3 goes by a right, which that account has: whoever may write TokenClients and mint has it not."""
    tenant, ours, off = stranger.tenant, ["tokenbroker.dev/anchors"], {"metadata": {"finalizers": None}}
    owner = await User.create(tenant, "owner", CLIENT_RULE, minting(["reader"]))
    body = token_client("shop", "held", grants=[{"serviceAccount": {"name": "reader"}, "vault": {}}])
    assert_passed(await owner.call("POST", tenant.path, body), 201)
    path = f"{tenant.path}/held"

    assert_passed(await stranger.call("PATCH", path, {"metadata": {"finalizers": ours}}))
    assert_held(await owner.call("PATCH", path, off), "tokenbroker-registration", "is the broker's")
    assert_passed(await stranger.call("PATCH", path, off))


async def test_nobody_orphans_an_anchor(stranger: Thief) -> None:
    """Lock 2 holds that broker, and lock 4 whoever may do anything else."""
    path, cluster = f"{stranger.core}/secrets/{ANCHOR}?propagationPolicy=Orphan", stranger.tenant.cluster

    assert_held(await stranger.call("DELETE", path), "tokenbroker-secrets", "orphans no anchor")
    assert_held(await cluster.request("DELETE", path), "tokenbroker-anchors", "--cascade=orphan")


async def test_it_records_no_event_about_a_pod(stranger: Thief) -> None:
    """Lock 2 knows who it is for Events, too."""
    body = {
        "metadata": {"generateName": "web-"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "kubelet",
        "reportingInstance": "node",
        "action": "Kill",
        "reason": "Killing",
        "type": "Normal",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web"},
    }
    outcome = await stranger.call("POST", "/apis/events.k8s.io/v1/namespaces/shop/events", body)

    assert_held(outcome, "tokenbroker-clients", "about TokenClients and its own Lease only")


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
