"""Real brokers that are killed in the middle of a flow, at a real API server; and what calls revoking costs.

In a cluster of its own: another broker would do what the killed one has left.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest_asyncio

from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.installed import install
from tests.support.killing_proxy import Cut, KillingProxy, about
from tests.support.kills import FLOWS, FORM, LIMITS, Bench, Held, Point, act, holding, prepared, settled, unclean
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.revocations import SINGLE, TOGETHER

GRANTS: list[dict[str, Any]] = [
    {"name": SINGLE, "revocation": "Token", "serviceAccount": {"name": "reader"}},
    {"name": TOGETHER, "serviceAccount": {"name": "reader"}},
]
AT_ONCE = 8
"""How many flows a broker is killed in at once: it visits eight clients at a time, and each may have to wait."""

REACHED_SECONDS, QUIET_SECONDS = 8.0, 1.5


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


async def test_a_broker_that_is_killed_before_any_call_leaves_a_clean_end_to_the_next(
    bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    """Of every flow, before every call by which it changes something; the next broker ends and makes the rest.

    How many calls a flow makes is counted with a broker that lives on. Then several flows at a time are each held at
    the call that is their turn, and the broker is killed when all of them have come there.
    """
    counts = await counted(bench)
    record_property("refused", f"calls to the API server a flow: {json.dumps(counts)}")
    points = [Point(flow, at) for flow, calls in counts.items() for at in range(1, calls + 1)]
    rounds = -(-len(points) // AT_ONCE)
    left: list[Held] = []
    missed: list[Point] = []
    dead: list[str] = []
    for number in range(rounds):
        turns = points[number::rounds]
        making = asyncio.gather(*(prepared(bench, point) for point in turns))
        async with bench.broker(f"killed-{number}", limits=LIMITS) as broker:
            await brought_to_their_end(broker, left)
            left, cuts = await begun(bench, broker, await making, turns)
            await all_reached(cuts)
            await broker.program.kill()
            bench.proxy.mend()
        missed += [one.point for one, cut in zip(left, cuts, strict=True) if not cut.reached.is_set()]
        dead += [one.tokens[name] for one in left for name in one.tokens.keys() - FLOWS[one.point.flow].alive]
    async with bench.broker("last", limits=LIMITS) as broker:
        await brought_to_their_end(broker, left)

        async def nothing_left() -> bool:
            return await bench.anchors() == []

        await until(nothing_left, what="no anchor is left")

    async def refused() -> bool:
        return not any([await bench.works(token) for token in dead])

    await until(refused, what="all that has ended is refused", seconds=15)
    assert len(missed) <= len(points) // 10, missed  # a call may be saved where two changes of a status become one
    assert min(counts.values()) > 0


async def counted(bench: Bench) -> dict[str, int]:
    """Return how many calls each flow makes until it has come to its end, with a broker that lives on."""
    points = [Point(flow, 0) for flow in FLOWS]
    tenants = await asyncio.gather(*(prepared(bench, point) for point in points))
    async with bench.broker("counted", limits=LIMITS) as broker:
        held, cuts = await begun(bench, broker, tenants, points)
        counts = await asyncio.gather(*(calls_to_the_end(*one) for one in zip(held, cuts, strict=True)))
        await brought_to_their_end(broker, held)
    return dict(zip(FLOWS, counts, strict=True))


async def calls_to_the_end(held: Held, cut: Cut) -> int:
    """Return how many calls there were when nothing was left to do."""

    async def clean() -> bool:
        return not await unclean(held)

    await held.acting
    await until(clean, what=f"{held.point} has come to its end")
    return len(cut.calls)


async def begun(
    bench: Bench, broker: BrokerProcess, tenants: Sequence[Tenant], points: Sequence[Point]
) -> tuple[list[Held], list[Cut]]:
    """Register clients, hand tokens out, and let each one's flow begin."""
    held = await asyncio.gather(*(holding(bench, broker, *one) for one in zip(tenants, points, strict=True)))
    await asyncio.gather(*(FLOWS[one.point.flow].before(one, broker) for one in held))
    cuts = [bench.proxy.cut(one.point.namespace, one.point.at) for one in held]
    for one in held:
        one.acting = asyncio.ensure_future(act(one, broker))
    return list(held), cuts


async def all_reached(cuts: list[Cut]) -> None:
    """Wait until the broker has come to all cuts, or long enough for it to have come to its end without."""
    with suppress(TimeoutError):
        async with asyncio.timeout(REACHED_SECONDS):
            await asyncio.gather(*(cut.reached.wait() for cut in cuts))


async def brought_to_their_end(broker: BrokerProcess, held: list[Held]) -> None:
    """Wait until a broker has done what the one before has left."""
    await asyncio.gather(*(settled(broker, one) for one in held))
    await until(lambda: none_orphaned(broker), what="no grant is orphaned")


async def none_orphaned(broker: BrokerProcess) -> bool:
    """Tell whether the gauge says so."""
    return "tokenbroker_orphaned_grants{" not in await broker.metrics()


def revoking(line: str) -> bool:
    """Tell which calls have to do with revoking or issuing tokens."""
    return "/secrets" in line or "/tokenreviews" in line or line.endswith("/token")


async def test_a_foreign_token_is_like_one_that_never_was(bench: Bench) -> None:
    """Same status, same body, and the same calls to the API server: nobody learns whose tokens there are."""
    tenant = await Tenant.create(bench.lab.cluster, "strangers")
    await tenant.account("reader")
    mine, theirs = [await tenant.client(name, *GRANTS) for name in ("mine", "theirs")]
    async with bench.broker("strangers", vault=None) as broker:
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
        assert len(seen[0][2]) == len(GRANTS)
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
    async with bench.broker("costs", vault=None) as broker:
        await broker.until_ready(client.id)
        cost = {}
        for name in (SINGLE, TOGETHER):
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
    async with bench.broker("orphans", vault=None) as broker:
        await broker.until_ready(client.id)
        token = (await broker.call("POST", "/v1/tokens", {"grant": TOGETHER}, auth=client.auth)).body["token"]
        _, binding = await bench.lab.cluster.request("GET", role)
        await bench.lab.cluster.request("DELETE", role)
        await asyncio.sleep(QUIET_SECONDS)  # nothing says when the API server's authorizer knows
        await tenant.patch("web", {"suspend": True})

        async def counted() -> bool:
            line = 'tokenbroker_orphaned_grants{client="web",namespace="orphans"} 2.0'
            return line in (await broker.metrics()).splitlines()

        await until(counted, what="orphans are counted")
        assert await bench.works(token)
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
