"""Real brokers that are killed in the middle of a flow, at a real API server; and what calls revoking costs.

In a cluster of its own: another broker would do what the killed one has left.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest_asyncio

from broker.model.anchor import grant_anchor
from broker.model.former_grants import FormerGrant
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.installed import install
from tests.support.killing_proxy import KillingProxy, about
from tests.support.lab import Lab
from tests.support.processes import ProgramError, until

SINGLE, TOGETHER = "single", "together"
GRANTS: list[dict[str, Any]] = [
    {"name": SINGLE, "revocation": "Token", "serviceAccount": {"name": "reader"}},
    {"name": TOGETHER, "serviceAccount": {"name": "reader"}},
]
QUIET_SECONDS = 1.5
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Bench:
    """A cluster without a broker, and a proxy to start some behind."""

    lab: Lab
    proxy: KillingProxy

    def broker(self, name: str) -> Any:
        """Return a broker to start behind the proxy, which waits for no Lease."""
        server = {"server": self.proxy.url, "ca_file": str(self.proxy.ca_file)}
        token = {"token_file": str(self.lab.processes.folder / name / "token")}
        return BrokerProcess.start(self.lab, name, kubernetes=server | token, vault=None)

    async def anchors(self, namespace: str) -> list[dict[str, Any]]:
        """Return the anchors of a namespace."""
        path = f"/api/v1/namespaces/{namespace}/secrets?fieldSelector=type%3Dtokenbroker.dev/anchor"
        return list((await self.lab.cluster.request("GET", path))[1]["items"])

    async def works(self, token: str) -> bool:
        """Tell whether the API server knows whose a token is."""
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        return (await self.lab.cluster.request("POST", path, {}, token=token))[0] == 201


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bench() -> AsyncIterator[Bench]:
    """Start the cluster."""
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        folder = lab.processes.folder / "killing-proxy"
        folder.mkdir()
        async with KillingProxy.start(lab.cluster, folder) as proxy:
            assert isinstance(proxy, KillingProxy)
            yield Bench(lab, proxy)


@dataclass(frozen=True, slots=True)
class Point:
    """A flow, and before which of its calls the broker is killed."""

    flow: str
    at: int

    @property
    def namespace(self) -> str:
        """A namespace of its own."""
        return f"killed-{self.flow.replace('_', '-')}-{self.at}"


async def suspend(tenant: Tenant) -> None:
    """Suspend the client."""
    await tenant.patch("web", {"suspend": True})


async def orphan(tenant: Tenant) -> None:
    """Delete it in the way that leaves what it owns."""
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    await tenant.cluster.request("DELETE", f"{tenant.path}/web", options)


async def delete(tenant: Tenant) -> None:
    """Delete it."""
    await tenant.cluster.request("DELETE", f"{tenant.path}/web")


async def remove_a_grant(tenant: Tenant) -> None:
    """Take a grant away."""
    await tenant.patch("web", {"grants": GRANTS[:1]})


async def change_the_account(tenant: Tenant) -> None:
    """Let a grant be for another account."""
    await tenant.patch("web", {"grants": [GRANTS[0], GRANTS[1] | {"serviceAccount": {"name": "other"}}]})


@dataclass(frozen=True, slots=True)
class Flow:
    """What is done, which grants' tokens live on, and of which grants and accounts there are anchors then."""

    act: Callable[[Tenant], Awaitable[None]]
    at: tuple[int, ...]
    alive: frozenset[str] = frozenset()
    anchors: tuple[tuple[str, str], ...] = ()


FLOWS = {
    "suspend": Flow(suspend, tuple(range(1, 8))),
    "orphan": Flow(orphan, tuple(range(1, 8))),
    "delete": Flow(delete, (3,)),
    "remove_a_grant": Flow(remove_a_grant, (2, 5), frozenset({SINGLE}), ((SINGLE, "reader"),)),
    "change_the_account": Flow(
        change_the_account, (3, 6), frozenset({SINGLE}), ((SINGLE, "reader"), (TOGETHER, "other"))
    ),
}
POINTS = [Point(name, at) for name, flow in FLOWS.items() for at in flow.at]


@dataclass(frozen=True, slots=True)
class Held:
    """A client, its UID and its tokens before anything was done to it."""

    tenant: Tenant
    client: Registered
    uid: str
    tokens: dict[str, str]


async def registered(bench: Bench, point: Point) -> tuple[Tenant, Registered]:
    """Make a namespace with a client."""
    tenant = await Tenant.create(bench.lab.cluster, point.namespace)
    for account in ("reader", "other"):
        await tenant.account(account)
    return tenant, await tenant.client("web", *GRANTS)


async def holding(bench: Bench, broker: BrokerProcess, tenant: Tenant, client: Registered) -> Held:
    """Hand tokens out."""
    await broker.until_ready(client.id)
    replies = {name: await broker.call("POST", "/v1/tokens", {"grant": name}, auth=client.auth) for name in both()}
    _, resource = await bench.lab.cluster.request("GET", f"{tenant.path}/web")
    return Held(tenant, client, resource["metadata"]["uid"], {name: it.body["token"] for name, it in replies.items()})


def both() -> tuple[str, str]:
    """Return the names of the grants."""
    return SINGLE, TOGETHER


async def test_a_broker_that_is_killed_in_the_middle_leaves_a_clean_end_to_the_next(bench: Bench) -> None:
    """Before each call of two flows and some of others: the next broker ends what has to, and makes the rest."""
    made = await asyncio.gather(*(registered(bench, point) for point in POINTS))
    async with bench.broker("first") as broker:
        held = await asyncio.gather(*(holding(bench, broker, *one) for one in made))
    killed = 0
    for number, (point, one) in enumerate(zip(POINTS, held, strict=True)):
        killed += await killed_at(bench, f"killed-{number}", point, one)
    assert killed >= len(POINTS) - 2  # a flow may have a call less than thought, where the API server merges two

    async with bench.broker("last") as broker:
        for point, one in zip(POINTS, held, strict=True):
            await until(partial(clean, bench, point, one), what=f"{point} has come to its end")
        await until(lambda: none_orphaned(broker), what="no grant is orphaned")
    for point, one in zip(POINTS, held, strict=True):
        assert await alive(bench, point, one) == FLOWS[point.flow].alive, point


async def killed_at(bench: Bench, name: str, point: Point, one: Held) -> bool:
    """Start a broker, let a flow begin, and kill it; tell whether it came so far."""
    async with bench.broker(name) as broker:
        await broker.until_ready(one.client.id)
        calls = bench.proxy.arm(about(point.namespace), broker.program, point.at)
        await FLOWS[point.flow].act(one.tenant)
        try:
            await until(lambda: ended(broker, calls), what="it is killed", seconds=QUIET_SECONDS)
        except ProgramError:
            return False
        finally:
            bench.proxy.arm(lambda _: False)
        return True


async def ended(broker: BrokerProcess, calls: list[str]) -> bool:
    """Tell whether a broker has been killed."""
    del calls
    return not broker.program.running


async def clean(bench: Bench, point: Point, one: Held) -> bool:
    """Tell whether those anchors of grants are there that should be, and no others."""
    wanted = {grant_anchor(one.uid, FormerGrant(*grant)).name for grant in FLOWS[point.flow].anchors}
    found = await bench.anchors(point.namespace)
    kinds = {it["metadata"]["name"]: it["metadata"]["labels"]["tokenbroker.dev/anchor"] for it in found}
    if {name for name, kind in kinds.items() if kind == "grant"} != wanted:
        return False
    status, resource = await bench.lab.cluster.request("GET", f"{one.tenant.path}/web")
    if point.flow in {"orphan", "delete"}:
        return status == 404 and not found
    return resource["metadata"]["finalizers"] == ["tokenbroker.dev/anchors"] and (bool(found) is bool(wanted))


async def alive(bench: Bench, point: Point, one: Held) -> set[str]:
    """Return of which grants the tokens that were handed out work, once the API server has forgotten them."""
    dead = set(both()) - FLOWS[point.flow].alive

    async def refused() -> bool:
        return not any([await bench.works(one.tokens[name]) for name in dead])

    await until(refused, what=f"{point}: tokens are refused", seconds=15)
    return {name for name in both() if await bench.works(one.tokens[name])}


async def none_orphaned(broker: BrokerProcess) -> bool:
    """Tell whether the gauge says so."""
    return "tokenbroker_orphaned_grants 0.0" in (await broker.metrics()).splitlines()


def revoking(line: str) -> bool:
    """Tell which calls have to do with revoking or issuing tokens."""
    return "/secrets" in line or "/tokenreviews" in line or line.endswith("/token")


async def test_a_foreign_token_is_like_one_that_never_was(bench: Bench) -> None:
    """Same status, same body, and the same calls to the API server: nobody learns whose tokens there are."""
    tenant = await Tenant.create(bench.lab.cluster, "strangers")
    await tenant.account("reader")
    mine, theirs = [await tenant.client(name, *GRANTS) for name in ("mine", "theirs")]
    async with bench.broker("strangers") as broker:
        for client in (mine, theirs):
            await broker.until_ready(client.id)
        victim = (await broker.call("POST", "/v1/tokens", {"grant": SINGLE}, auth=theirs.auth)).body
        seen = []
        for token_id in (victim["id"], "0123456789abcdef01234567"):
            calls = bench.proxy.arm(revoking)
            reply = await broker.call("DELETE", f"/v1/tokens/{token_id}", auth=mine.auth)
            seen.append((reply.status, reply.body, [line.replace(token_id, "ID") for line in calls]))
        shown = []
        for token in (victim["token"], f"{victim['token'][:-6]}AAAAAA"):
            calls = bench.proxy.arm(revoking)
            form = f"token={quote(token)}".encode()
            reply = await broker.call("POST", "/oauth2/revoke", auth=mine.auth, data=form, headers=FORM)
            shown.append((reply.status, reply.body, list(calls)))
        bench.proxy.arm(lambda _: False)

        assert seen[0] == seen[1]
        assert seen[0][:2] == (204, "")
        assert len(seen[0][2]) == 1
        assert shown[0] == shown[1]
        assert shown[0][:2] == (200, "")
        assert await bench.works(victim["token"])
        assert await introspected(broker, theirs, victim["token"]) == (True, SINGLE)
        assert await introspected(broker, mine, victim["token"]) == (False, None)
        await refusals_of_shared_tokens(broker, mine)


async def introspected(broker: BrokerProcess, client: Registered, token: str) -> tuple[bool, str | None]:
    """Return whether a token is good, and of which grant, by its client's question."""
    form = f"token={quote(token)}".encode()
    reply = await broker.call("POST", "/oauth2/introspect", auth=client.auth, data=form, headers=FORM)
    return reply.body["active"], reply.body.get("scope")


async def refusals_of_shared_tokens(broker: BrokerProcess, client: Registered) -> None:
    """Assert that tokens which share their end are refused as what they are."""
    shared = (await broker.call("POST", "/v1/tokens", {"grant": TOGETHER}, auth=client.auth)).body
    by_id = await broker.call("DELETE", f"/v1/tokens/{shared['id']}", auth=client.auth)
    form = f"token={quote(shared['token'])}".encode()
    by_token = await broker.call("POST", "/oauth2/revoke", auth=client.auth, data=form, headers=FORM)

    assert (by_id.status, by_id.body["code"]) == (409, "not_individually_revocable")
    assert (by_token.status, by_token.body["error"]) == (400, "unsupported_token_type")


async def test_what_a_token_costs(bench: Bench, record_property: Callable[[str, object], None]) -> None:
    """A grant with revocation Grant costs one call to the API server a token, one with Token three."""
    tenant = await Tenant.create(bench.lab.cluster, "costs")
    await tenant.account("reader")
    client = await tenant.client("web", *GRANTS)
    async with bench.broker("costs") as broker:
        await broker.until_ready(client.id)
        cost = {}
        for name in both():
            await broker.call("POST", "/v1/tokens", {"grant": name}, auth=client.auth)
            calls = bench.proxy.arm(about("costs"))
            reply = await broker.call("POST", "/v1/tokens", {"grant": name}, auth=client.auth)
            assert reply.status == 200
            cost[name] = len([line for line in calls if revoking(line)])
        bench.proxy.arm(lambda _: False)
    record_property("refused", f"calls to the API server a token: {json.dumps(cost)}")

    assert cost == {SINGLE: 3, TOGETHER: 1}


async def test_the_orphan_gauge_counts_and_goes_back(bench: Bench) -> None:
    """Without its Role the broker cannot end tokens: it says of how many grants, until it can."""
    tenant = await Tenant.create(bench.lab.cluster, "orphans")
    await tenant.account("reader")
    client = await tenant.client("web", *GRANTS)
    role = "/apis/rbac.authorization.k8s.io/v1/namespaces/orphans/rolebindings/tokenbroker-mint-reader"
    async with bench.broker("orphans") as broker:
        held = await holding(bench, broker, tenant, client)
        _, binding = await bench.lab.cluster.request("GET", role)
        await bench.lab.cluster.request("DELETE", role)
        await asyncio.sleep(QUIET_SECONDS)  # nothing says when the API server's authorizer knows
        await tenant.patch("web", {"suspend": True})

        async def counted() -> bool:
            return "tokenbroker_orphaned_grants 2.0" in (await broker.metrics()).splitlines()

        await until(counted, what="orphans are counted")
        assert await bench.works(held.tokens[TOGETHER])
        back = {"metadata": {"name": binding["metadata"]["name"]}, "roleRef": binding["roleRef"]}
        await bench.lab.cluster.request("POST", role.rpartition("/")[0], back | {"subjects": binding["subjects"]})
        await until(lambda: none_orphaned(broker), what="they are ended", seconds=60)
        assert await bench.anchors("orphans") == []


async def test_a_follower_uses_the_leaders_anchor_and_makes_none(bench: Bench) -> None:
    """Where it is missing, a follower answers 503 anchor_missing, and goes on answering so."""
    tenant = await Tenant.create(bench.lab.cluster, "followed")
    await tenant.account("reader")
    client = await tenant.client("web", GRANTS[1])
    lease = {"name": "followed", "duration_seconds": 60}
    async with BrokerProcess.start(bench.lab, "leader", lease=lease, vault=None) as leader:
        await leader.until_ready(client.id)
        async with BrokerProcess.start(bench.lab, "follower", lease=lease, vault=None) as follower:

            async def answer() -> tuple[int, Any]:
                reply = await follower.call("POST", "/v1/tokens", {}, auth=client.auth)
                return reply.status, reply.body.get("code")

            async def served() -> bool:
                return (await answer())[0] == 200

            await until(served, what="the follower uses the leader's anchor")
            await leader.program.kill()  # its Lease is held for a minute
            await bench.lab.cluster.kubectl("delete", "secret", "-n", "followed", "--all")

            assert [await answer() for _ in range(3)] == [(503, "anchor_missing")] * 3
            assert [it for it in await bench.anchors("followed") if "grant" in str(it["metadata"]["labels"])] == []
