"""A real Prometheus with the rules that operators get says when replicas end, contend, or leave work undone."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest
import pytest_asyncio

from tests.monitoring.rules import RULES
from tests.support.alerted import Expected, Fired, assert_told, is_copied, remove, with_threshold
from tests.support.broker import ACCOUNT, Tenant
from tests.support.chaos.setting import BY_ITSELF, READER
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.scripted import answer, hangs, says
from tests.support.watched import FILES, SECOND, Replicas
from tests.support.watching import Watching, hurried

NAME = "replicas-watched"
QUIET_SECONDS = 5.0
THRESHOLDS = {
    "TokenbrokerCredentialExpiring": ("< 300", "< 595"),
    "TokenbrokerWorkLate": ("> 300", "> 3"),
    "TokenbrokerVaultTokenLate": ("> 600", "> 5"),
}
"""In seconds: what operators get, and what a test can wait for. No token is made for less than 600."""
SHORT = 600
CROWD = 32
"""More clients than the broker looks at at a time: so the others wait for as long as a call that is not answered."""
STARTS, CHANGES = 3, 4

KEEPER = {"namespace": NAME, "client": "keeper"}
WATCHER = {"namespace": NAME, "client": "watcher"}
NEGLECT: Expected = {
    "TokenbrokerCredentialExpiring": (
        {"credential": "tls", "instance": FILES},
        "The credential tls of the broker at files-0 expires in 2d 23h",
    ),
    "TokenbrokerRegistryFilesBroken": (
        {"instance": FILES},
        "1 files of the registry's directory at files-0 serve nobody.",
    ),
    "TokenbrokerClientDegraded": (
        {**WATCHER, "type": "AccessVerified", "reason": "AccessMissing"},
        "replicas-watched/watcher is not AccessVerified: AccessMissing.",
    ),
    "TokenbrokerVaultTokenLate": (
        {**KEEPER, "grant": "default"},
        "The token of replicas-watched/keeper (grant default) in Vault should have been replaced",
    ),
}
"""What is to fire when a certificate was not renewed, a file of clients was spoiled, an account's right was taken away,
and Vault was sealed."""

UNRENEWED: Expected = {
    "TokenbrokerCredentialExpiring": (
        {"credential": "kubernetes", "instance": SECOND},
        "The credential kubernetes of the broker at tokenbroker-1 expires in",
    ),
}
"""What is to fire, besides, when the kubelet did not renew the broker's token."""

CROWDED: Expected = {
    "TokenbrokerWorkLate": (
        {"queue": "reconcile"},
        "Work of the queue reconcile at tokenbroker-",
    ),
}
"""What is to fire when the API server does not answer while many clients are registered."""

CONTENTION: Expected = {
    "TokenbrokerTwoLeaders": ({"job": "tokenbroker"}, "2 replicas of the broker lead at once."),
}
"""What is to fire when a leader is told that its renewals succeed, and the other replica finds the Lease over."""

UNREST: Expected = {
    "TokenbrokerLeaderFlapping": ({"job": "tokenbroker"}, "The lead has changed"),
    "TokenbrokerRestarting": ({"instance": FILES}, "The broker at files-0 has started 3 times within 30 minutes."),
}
"""What is to fire when renewals of the Lease get no answer, and a broker is killed and started, again and again."""

END: Expected = {"TokenbrokerDown": ({"job": "tokenbroker"}, "No replica of the broker can be scraped.")}
"""What is to fire when no replica runs."""

EXPECTED: Expected = NEGLECT | UNRENEWED | CROWDED | CONTENTION | UNREST | END


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicas(harmed: Lab) -> AsyncIterator[Replicas]:
    """Start the brokers, two clients, and a Prometheus that watches."""
    rules = hurried(RULES)
    for alert, (given, by) in THRESHOLDS.items():
        with_threshold(rules, alert, given, by)
    async with Replicas.start(harmed, NAME, rules) as started:
        await started.tenant.ready_client("keeper", "kept", vault=BY_ITSELF)
        await started.tenant.ready_client("watcher", "reader", expect={"allow": ["list pods"]})
        await until(partial(is_copied, started.tenant, "keeper"), what="the token is in Vault")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def neglect(replicas: Replicas) -> tuple[Fired, Fired]:
    """Leave undone what somebody has to do, and return what fires, of the broker's token last."""
    cluster = replicas.lab.cluster
    await replicas.lab.vault.seal()
    replicas.authority.server("broker", timedelta(days=3))
    (replicas.brokers[1].folder / "token").write_text(await cluster.token_for(*ACCOUNT, seconds=SHORT))
    await replicas.clients.swap({"spoiled.yaml": "spec: {grants: ["})
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAME}/rolebindings"
    await cluster.request("DELETE", f"{bindings}/reader")
    try:
        await until(partial(_is_missed, replicas.tenant), what="the right is missed", pause=1.0)
        return await replicas.fired(NEGLECT), await replicas.fired(UNRENEWED)
    finally:
        await replicas.lab.vault.unseal()


async def _is_missed(tenant: Tenant) -> bool:
    """Have the client looked at: a change of rights alone is announced to nobody."""
    await tenant.patch("watcher", {"owner": uuid.uuid4().hex})
    return (await tenant.condition("watcher", "AccessVerified")).get("reason") == "AccessMissing"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowded(replicas: Replicas, neglect: tuple[Fired, Fired]) -> Fired:
    """Register many clients while the API server does not answer TokenRequests, and return what fires."""
    assert all(neglect)
    for proxy in replicas.proxies:
        proxy.hurt("POST /api/v1/namespaces/[^/]+/serviceaccounts/[^/]+/token", hangs())
    for number in range(CROWD):
        await replicas.tenant.client(f"crowd-{number}", READER)
    fired = await replicas.fired(CROWDED)
    for proxy in replicas.proxies:
        proxy.heal()
    return fired


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def contention(replicas: Replicas, crowded: Fired) -> Fired:
    """Let both replicas lead, and return what fires."""
    assert crowded
    leader = await replicas.until_one_leads()
    _, lease = await replicas.lab.cluster.request("GET", replicas.lease)
    replicas.hurt_lease(leader, says(answer(200, json.dumps(lease).encode())))
    fired = await replicas.fired(CONTENTION)
    replicas.proxies[leader].heal()
    await replicas.until_one_leads(leader)
    return fired


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def unrest(replicas: Replicas, contention: Fired) -> Fired:
    """Have the lead change four times in all, and a broker start anew three times; return what fires."""
    assert contention
    await asyncio.gather(_lead_changes(replicas), _starts_anew(replicas))
    return await replicas.fired(UNREST)


async def _lead_changes(replicas: Replicas) -> None:
    for _ in range(CHANGES - 1):
        leader = await replicas.until_one_leads()
        replicas.hurt_lease(leader, hangs())
        await replicas.until_one_leads(leader)
        replicas.proxies[leader].heal()


async def _starts_anew(replicas: Replicas) -> None:
    for _ in range(STARTS):
        before = await _started(replicas.watching)
        await replicas.filed.program.kill()
        replicas.filed.program.start()

        async def seen(before: list[str] = before) -> bool:
            return await _started(replicas.watching) not in ([], before)

        await until(seen, what="the new process was scraped", programs=[replicas.filed.program])


async def _started(watching: Watching) -> list[str]:
    samples = await watching.query(f'process_start_time_seconds{{instance="{FILES}"}}')
    return [str(sample["value"][1]) for sample in samples]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def end(replicas: Replicas, unrest: Fired) -> Fired:
    """Kill all, after they have ended what they made, and return what fires."""
    assert unrest
    await remove(replicas.lab.cluster, NAME)
    for broker in (*replicas.brokers, replicas.filed):
        await broker.program.kill()
    return await replicas.fired(END)


async def test_nothing_fires_while_all_is_well(replicas: Replicas) -> None:
    """Over more time than most rules wait here, with two replicas, of which one leads."""
    await asyncio.sleep(QUIET_SECONDS)  # nothing says that nothing will happen

    assert await replicas.watching.firing() == []


@pytest.mark.parametrize("alert", NEGLECT)
async def test_what_was_left_undone_is_told(alert: str, neglect: tuple[Fired, Fired]) -> None:
    """By an alert that names the broker or the client, and the runbook."""
    assert_told(neglect[0], alert, *NEGLECT[alert])


@pytest.mark.parametrize("alert", UNRENEWED)
async def test_a_token_that_is_not_renewed_is_told(alert: str, neglect: tuple[Fired, Fired]) -> None:
    """By an alert that names the replica, the credential and the runbook."""
    assert_told(neglect[1], alert, *UNRENEWED[alert])


@pytest.mark.parametrize("alert", CROWDED)
async def test_work_that_comes_late_is_told(alert: str, crowded: Fired) -> None:
    """By an alert that names the queue, the replica and the runbook."""
    assert_told(crowded, alert, *CROWDED[alert])


@pytest.mark.parametrize("alert", CONTENTION)
async def test_two_leaders_are_told(alert: str, contention: Fired) -> None:
    """By an alert that says how many, and names the runbook."""
    assert_told(contention, alert, *CONTENTION[alert])


@pytest.mark.parametrize("alert", UNREST)
async def test_what_comes_again_and_again_is_told(alert: str, unrest: Fired) -> None:
    """By an alert that says how often, and names the runbook."""
    assert_told(unrest, alert, *UNREST[alert])


@pytest.mark.parametrize("alert", END)
async def test_the_end_of_all_replicas_is_told(alert: str, end: Fired) -> None:
    """By an alert that names the runbook."""
    assert_told(end, alert, *END[alert])
