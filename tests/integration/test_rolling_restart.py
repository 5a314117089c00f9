"""Replicas that are restarted in turn under load: no caller gets anything but a token, and none is without a record."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest_asyncio

from tests.support.balancer import Balancer
from tests.support.broker import BrokerProcess, Registered, Tenant, basic
from tests.support.lab import Lab
from tests.support.processes import free_port, until

LAG_SECONDS = 1.0
"""How late the balancer learns that a replica is not ready any more."""
DELAY_SECONDS = 3
PAUSES = (0.02, 0.03, 0.05, 0.1, 0.5, 1.3)
"""Between two requests of a caller. None asks for so little that his connection is closed unasked in the end."""
SELDOM = 10 * DELAY_SECONDS
"""Of one who is silent for the whole of a stop: his connection is closed, which he sees before he asks again."""


@dataclass(slots=True)
class Caller:
    """Somebody who keeps one connection, asks for one token after the other, and never tries again."""

    url: str
    client: Registered
    pause: float
    ids: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Ask until cancelled."""
        connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=300)
        headers = {"Authorization": basic(*self.client.auth)}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            while True:
                await self._ask(session)
                await asyncio.sleep(self.pause)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(f"{self.url}/v1/tokens", json={}) as answer:
                body = await answer.json()
        except aiohttp.ClientError as error:
            self.failures[type(error).__name__] += 1
            return
        if answer.status == 200:
            self.ids.append(body["id"])
        else:
            self.failures[body["code"]] += 1


@dataclass(frozen=True, slots=True)
class Service:
    """Replicas behind one address."""

    replicas: list[BrokerProcess]
    balancer: Balancer
    client: Registered

    @asynccontextmanager
    async def load(self) -> AsyncIterator[list[Caller]]:
        """Let callers ask until leaving."""
        callers = [Caller(self.balancer.url, self.client, pause) for pause in (*PAUSES, SELDOM)]
        running = [asyncio.create_task(caller.run()) for caller in callers]
        try:
            yield callers
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def restart(self, replica: BrokerProcess) -> int | None:
        """Stop a replica as the kubelet does, start it again, and return how it ended, once callers come to it."""
        await replica.program.stop(60)
        code = replica.program.code
        replica.program.start()
        await replica.ready()
        await self.until_called(replica)
        return code

    async def until_called(self, replica: BrokerProcess) -> None:
        """Wait until new connections may go to a replica."""

        async def called() -> bool:
            return self.balancer.sends_to(replica)

        await until(called, what="the balancer knows the replica", programs=(replica.program,))

    def recorded(self) -> set[str]:
        """Return the ids of all tokens that were written down."""
        records = [record for replica in self.replicas for record in replica.records(self.client.id)]
        return {record["id"] for record in records if record["event"] == "token.issued"}


@asynccontextmanager
async def serving(installed: Lab, tenant: Tenant, replicas: int, delay: float) -> AsyncIterator[Service]:
    """Run replicas with one Lease behind a balancer, and register a client."""
    name = f"rolling-{secrets.token_hex(4)}"
    lease: dict[str, Any] = {"name": name, "duration_seconds": 6}
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(
                BrokerProcess.start(
                    installed,
                    f"{name}-{number}",
                    lease=lease,
                    listen={"port": free_port(), "shutdown_delay_seconds": delay},
                )
            )
            for number in range(replicas)
        ]
        client = await tenant.ready_client("reader")
        service = Service(made, await stack.enter_async_context(Balancer.start(made, lag=LAG_SECONDS)), client)
        for replica in made:
            await service.until_called(replica)
        await until(lambda: _all_issue(service), what="all replicas issue")
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def service(installed: Lab, tenant: Tenant) -> AsyncIterator[Service]:
    """Run three replicas that know how late their callers learn."""
    async with serving(installed, tenant, 3, DELAY_SECONDS) as running:
        yield running


async def test_replicas_that_are_restarted_in_turn_lose_no_request(service: Service) -> None:
    """Each of three, twice, under load on kept connections: no failure, no answer without its audit record."""
    async with service.load() as callers:
        codes = [await service.restart(replica) for replica in service.replicas * 2]
    ids = [one for caller in callers for one in caller.ids]
    failures = sum((caller.failures for caller in callers), Counter[str]())

    print(f"\n{len(ids)} tokens over 6 restarts, failures: {dict(failures)}")  # noqa: T201
    assert failures == Counter()
    assert codes == [0] * 6
    assert all(caller.ids for caller in callers), "each of them asked"
    assert len(ids) == len(set(ids)) > 300
    assert set(ids) <= service.recorded()
    assert service.balancer.refused == 0


async def test_without_the_delay_requests_are_lost(installed: Lab, tenant: Tenant) -> None:
    """So the load above notices: callers are sent to a replica that is gone for as long as nobody has learnt it."""
    async with serving(installed, tenant, 2, 0) as service:
        async with service.load() as callers:
            await service.restart(service.replicas[0])
        failures = sum((caller.failures for caller in callers), Counter[str]())

    assert service.balancer.refused > 0
    assert failures.total() > 0
    assert set(failures) <= {"ClientOSError", "ServerDisconnectedError", "ClientConnectorError"}, failures


async def _all_issue(service: Service) -> bool:
    replies = [await one.call("POST", "/v1/tokens", {}, auth=service.client.auth) for one in service.replicas]
    return all(reply.status == 200 for reply in replies)
