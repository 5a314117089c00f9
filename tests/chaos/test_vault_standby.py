"""Faults of a Vault of three servers: a standby takes over, and whatever was cut off in the middle heals by itself.

One broker reaches them by one address behind which connections go to each in turn, standbys included; another one has
the address of a single one of them, which stands by at first.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest_asyncio

from broker.clock import SystemClock
from broker.model.client import ROTATE_REQUESTED
from broker.model.sensitive import Sensitive
from broker.model.times import timestamp
from broker.vault.answer import Answer, checked
from broker.vault.store import KvStore
from broker.vault.transport import VaultTransport
from tests.support.broker import ACCOUNT, BrokerProcess
from tests.support.chaos.ledger import NO_ANSWER
from tests.support.chaos.links import Link
from tests.support.chaos.report import Outcome
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import DELIVER, ISSUE, SINGLE
from tests.support.lab import Lab
from tests.support.openbao import OpenBao, configure_for_broker
from tests.support.openbao_cluster import ACTIVE, NODES, OpenBaoCluster
from tests.support.processes import until

UNAVAILABLE, CONFLICT = "503 vault_unavailable", "503 vault_write_conflict"
NAME, TIMEOUT_SECONDS = "standbys", 3
READ = 2
"""The server that the second broker and all readers are told: what one has shown, it shows again."""

UNDER_WAY = 6
WRITES, ELSEWHERE = 60, ("elsewhere", "written")
"""One read in five that follows a write at a standby was of the version before, where nothing was said about it."""

TAKEN_OVER_SECONDS = 40.0
"""Bound for a standby that takes over, on a busy machine. Who steps down stays out for ten seconds."""

ASKED_SECONDS = 20.0
"""Bound for a broker to notice that Vault takes no writes: it asks each ten seconds, and at once when one failed."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(harmed: Lab) -> AsyncIterator[OpenBaoCluster]:
    """Start three, configured as operators do it.

    A standby takes over whom auth/kubernetes trusts when it starts, or within half a minute (OpenBao 2.7).
    """
    async with OpenBaoCluster.start(harmed.processes) as cluster:
        active = await cluster.active()
        await configure_for_broker(cluster.nodes[active], harmed.cluster)
        for number in {*range(NODES)} - {active}:
            await cluster.nodes[number].program.kill()
            await cluster.bring_back(number)
        login = {"role": "tokenbroker", "jwt": await harmed.cluster.token_for(*ACCOUNT, audiences=["vault"])}
        for node in cluster.nodes:
            await until(partial(_logs_in, node, login), what="each server lets the broker log in", seconds=60.0)
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab, servers: OpenBaoCluster) -> AsyncIterator[Scene]:
    """Start both brokers."""
    lab = replace(harmed, vault=servers.nodes[READ])
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(Link.to(*(node.address for node in servers.nodes)))
        each = [{"vault": _vault(lab, number, url)} for number, url in enumerate((shared.url, lab.vault.address))]
        yield await stack.enter_async_context(Scene.start(lab, NAME, replicas=2, each=each))


def _vault(lab: Lab, number: int, address: str) -> dict[str, object]:
    token_file = lab.folder / f"{NAME}-{number}" / "vault-token"
    return {
        "address": address,
        "ca_file": str(lab.vault.ca_file),
        "token_file": str(token_file),
        "timeout_seconds": TIMEOUT_SECONDS,
    }


@asynccontextmanager
async def interrupted(scene: Scene) -> AsyncIterator[None]:
    """Let the block come in the middle of a rotation, and of deliveries of one copy by both brokers."""
    caller = next(caller for caller in scene.callers if caller.what == DELIVER)
    body = {"metadata": {"annotations": {ROTATE_REQUESTED: timestamp(datetime.now(UTC))}}}
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(caller.once()) for _ in range(UNDER_WAY)]
        await scene.lab.cluster.request("PATCH", f"{scene.tenant.path}/kept", body)
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        yield


def nobody_else_noticed(outcome: Outcome) -> bool:
    """Tell whether issuing went on, and deliveries failed with nothing but a word on when to come back."""
    issuing = all(set(outcome.seen[what]) <= {"200"} for what in (ISSUE, SINGLE))
    return issuing and set(outcome.seen[DELIVER]) <= {"200", UNAVAILABLE, CONFLICT, NO_ANSWER}


async def test_the_active_server_steps_down(scene: Scene, servers: OpenBaoCluster) -> None:
    """Until another one is active, deliveries are refused; what the standbys still read harms nothing."""
    async with scene.fault("Vault: the active server of three steps down"):
        async with interrupted(scene):
            await servers.step_down()
        await servers.active()
        await scene.sees(DELIVER, "200", times=2)
    outcome = await scene.healed()

    assert nobody_else_noticed(outcome)
    assert outcome.lasted < TAKEN_OVER_SECONDS
    assert outcome.healed[DELIVER] < 10


async def test_the_active_server_is_killed(scene: Scene, servers: OpenBaoCluster) -> None:
    """A standby takes over, also what was written and never answered; the one that was killed comes back as one."""
    killed = await servers.active()
    async with scene.fault("Vault: the active server of three killed (SIGKILL), started again later"):
        async with interrupted(scene):
            await servers.nodes[killed].program.kill()
        await servers.active()
        await scene.sees(DELIVER, "200", times=2)
    taken_over = scene.outcome.lasted
    await servers.bring_back(killed)
    outcome = await scene.healed()

    assert nobody_else_noticed(outcome)
    assert taken_over < TAKEN_OVER_SECONDS


async def test_the_active_server_hangs(scene: Scene, servers: OpenBaoCluster) -> None:
    """Another one takes over while it hangs with what was sent to it; whoever looks after it ends it then.

    One that goes on instead may take itself for active for more than a minute, and take no writes (OpenBao 2.7).
    """
    paused = await servers.active()
    async with scene.fault("Vault: the active server of three paused (SIGSTOP), killed later and started again"):
        async with interrupted(scene):
            servers.nodes[paused].pause()
        await until(partial(_another, servers, paused), what="another one is active", seconds=TAKEN_OVER_SECONDS)
        await scene.sees(DELIVER, "200", times=2)
        await servers.nodes[paused].program.kill()
    taken_over = scene.outcome.lasted
    await servers.bring_back(paused)
    outcome = await scene.healed()

    assert nobody_else_noticed(outcome)
    assert taken_over < TAKEN_OVER_SECONDS
    assert outcome.slowest[ISSUE] < 2


async def test_no_server_is_active(scene: Scene, servers: OpenBaoCluster) -> None:
    """A standby alone reads and takes no writes: the broker says so, and leaves copies alone until one is active."""
    active = await servers.active()
    dead = sorted({0, 1, 2} - {READ}) if active == READ else [active, next(iter({0, 1} - {active}))]
    async with scene.fault("Vault: two servers of three killed, so that none is active"):
        await asyncio.gather(*(servers.nodes[number].program.kill() for number in dead))
        await scene.sees(DELIVER, UNAVAILABLE, times=2)
        for broker in scene.brokers:
            await until(partial(_cut_off, broker), what="both know that Vault is away", seconds=ASKED_SECONDS)
        await scene.sees(DELIVER, UNAVAILABLE, times=2)
        for number in dead:
            await servers.bring_back(number)
        await servers.active()
        await scene.sees(DELIVER, "200", times=2)
    outcome = await scene.healed()

    assert nobody_else_noticed(outcome)
    assert await scene.lab.vault.health() in {200, 429}


async def test_a_standby_answers_with_what_was_written(servers: OpenBaoCluster) -> None:
    """A standby reads by itself, a moment behind: the broker is never shown an older version than it has written."""
    node = servers.nodes[(await servers.active() + 1) % NODES]
    async with VaultTransport(node.address, node.ca_file, TIMEOUT_SECONDS) as transport:

        async def send(method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
            return checked(await transport.call(method, path, body, token=Sensitive(node.root_token)))

        store = KvStore(send, "secret", SystemClock())
        seen = []
        for version in range(WRITES):
            await store.write(ELSEWHERE, {"token": "x"}, cas=version)
            copy = await store.inspect(ELSEWHERE)
            seen.append(copy.current_version if copy else 0)

    assert seen == [*range(1, WRITES + 1)]


async def _logs_in(node: OpenBao, login: dict[str, Any]) -> bool:
    status, _ = await node.api("POST", "auth/kubernetes/login", login, token="")
    return status == 200


async def _another(servers: OpenBaoCluster, paused: int) -> bool:
    return any([await node.health() == ACTIVE for number, node in enumerate(servers.nodes) if number != paused])


async def _cut_off(broker: BrokerProcess) -> bool:
    return 'tokenbroker_vault_unreachable{reason="vault_unavailable"} 1.0' in (await broker.metrics()).splitlines()
