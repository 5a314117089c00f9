"""More requests than the API server can serve: who storms holds up himself, and what cannot be served is refused."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest_asyncio

from tests.support.broker import BrokerProcess, Registered, Reply, Tenant, basic
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import free_port, until

FEW = {"concurrency": 4, "waiting": 12, "waiting_per_client": 8, "wait_seconds": 5}
DELIVER = b'{"deliver":"vault"}'
STORM_CONNECTIONS = 64
AT_ONCE_SECONDS = 2.0
"""Generous on a busy machine, and far below the 5 s that a request may wait, and the 10 s of a call."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def installed() -> AsyncIterator[Lab]:
    """Start a cluster in which no broker runs but those that a test starts.

    While the API server hangs for longer than the Lease lives, a broker follows what statuses say of grants. Another,
    of a Lease of its own, says that they are not ready where it could not look at them.
    """
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        yield lab


class Caller:
    """One client on as many connections as it likes."""

    def __init__(self, broker: BrokerProcess, client: Registered, session: aiohttp.ClientSession) -> None:
        self._url, self._session = f"{broker.url}/v1/tokens", session
        self._headers = {"Authorization": basic(*client.auth), "Content-Type": "application/json"}

    async def ask(self, data: bytes = b"{}") -> tuple[int, str, float]:
        """Ask for a token and return status, code and the seconds that it took."""
        started = time.perf_counter()
        async with self._session.post(self._url, headers=self._headers, data=data) as answer:
            body = await answer.json()
            if answer.status == 503:
                assert 1 <= int(answer.headers["Retry-After"]) <= 10
        return answer.status, body.get("code", ""), time.perf_counter() - started

    async def ask_all_the_time(self, until_set: asyncio.Event) -> None:
        """Ask again as soon as there is an answer."""
        while not until_set.is_set():
            await self.ask()

    async def latencies(self, number: int) -> list[float]:
        """Ask now and then, and return how long each answer took. Each must be a token."""
        taken = []
        for _ in range(number):
            status, code, seconds = await self.ask()
            assert (status, code) == (200, "")
            taken.append(seconds)
            await asyncio.sleep(0.02)
        return taken


@asynccontextmanager
async def callers(broker: BrokerProcess, *clients: Registered) -> AsyncIterator[list[Caller]]:
    """Open a session without a limit for each client."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield [Caller(broker, client, session) for client in clients]


async def two_clients(broker: BrokerProcess, tenant: Tenant) -> tuple[Registered, Registered]:
    """Register two that this broker serves."""
    await tenant.account("reader")
    grant = {"serviceAccount": {"name": "reader"}}
    noisy, quiet = await tenant.client("noisy", grant), await tenant.client("quiet", grant)
    for client in (noisy, quiet):
        await broker.until_ready(client.id)
    return noisy, quiet


@asynccontextmanager
async def storm(caller: Caller) -> AsyncIterator[None]:
    """Let a client ask all the time on many connections."""
    over = asyncio.Event()
    tasks = [asyncio.create_task(caller.ask_all_the_time(over)) for _ in range(STORM_CONNECTIONS)]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def test_a_storm_of_one_client_does_not_queue_another(installed: Lab, tenant: Tenant) -> None:
    """While 64 connections of a client wait, the other's request takes far less than theirs do.

    Without turns it would wait behind all of them, as each of them does.
    """
    queue = {"concurrency": 4}
    async with BrokerProcess.start(installed, "stormed", log_level="warning", queue=queue) as broker:
        noisy, quiet = await two_clients(broker, tenant)
        async with callers(broker, noisy, quiet) as (stormer, caller):
            alone = await caller.latencies(60)
            async with storm(stormer):
                theirs = asyncio.create_task(stormer.latencies(20))
                stormed = await caller.latencies(60)
                of_the_storm = await theirs
            metrics = await broker.metrics()

    assert statistics.median(stormed) < statistics.median(of_the_storm) / 2
    assert statistics.quantiles(stormed, n=100)[98] < max(of_the_storm) + 10 * statistics.quantiles(alone, n=100)[98]
    assert 'tokenbroker_requests_shed_total{reason="queue_full"} 0.0' in metrics
    assert "tokenbroker_request_wait_duration_seconds_count 0.0" not in metrics


async def test_what_a_hanging_api_server_cannot_serve_is_refused_at_once(installed: Lab, tenant: Tenant) -> None:
    """Beyond those who wait everybody hears so within moments; thawed, the first request is served at once."""
    async with BrokerProcess.start(installed, "overloaded", queue=FEW) as broker:
        noisy, quiet = await two_clients(broker, tenant)
        async with callers(broker, noisy, quiet) as (stormer, caller):
            installed.cluster.api_server.pause()
            try:
                waiting = [asyncio.create_task(stormer.ask()) for _ in range(4 + 8)]
                await until(lambda: waits(broker, 8), what="the queue of one is full")
                refused = await asyncio.gather(*(stormer.ask() for _ in range(20)))
                patient = asyncio.create_task(caller.ask())
                await until(lambda: waits(broker, 9), what="the other one waits, too")
            finally:
                installed.cluster.api_server.resume()
            served = await asyncio.gather(patient, *waiting)
            first = await caller.ask()
            metrics = await broker.metrics()

    assert {(status, code) for status, code, _ in refused} == {(503, "overloaded")}
    assert max(seconds for *_, seconds in refused) < AT_ONCE_SECONDS
    assert {status for status, *_ in served} == {200}
    assert (first[0], first[2] < AT_ONCE_SECONDS) == (200, True)
    assert 'tokenbroker_requests_shed_total{reason="client_queue_full"} 20.0' in metrics
    assert "tokenbroker_requests_waiting 0.0" in metrics


async def test_nobody_waits_longer_than_the_queue_allows(installed: Lab, tenant: Tenant) -> None:
    """Those who waited are told so, and those who come then are at once: it has hung for too long."""
    async with BrokerProcess.start(installed, "waiting", queue=FEW) as broker:
        noisy, quiet = await two_clients(broker, tenant)
        async with callers(broker, noisy, quiet) as (stormer, caller):
            installed.cluster.api_server.pause()
            try:
                calls = {asyncio.create_task(stormer.ask()) for _ in range(4 + 3)}
                await until(lambda: refusals(broker, 3), what="those who waited are told so")
                waited, calls = await asyncio.wait(calls, timeout=0.5)
                late = asyncio.create_task(stormer.ask())
                await until(lambda: waits(broker, 1), what="one of a client may wait for news")
                at_once = await asyncio.gather(*(stormer.ask() for _ in range(5)))
            finally:
                installed.cluster.api_server.resume()
            end = await asyncio.gather(late, *calls)
            first = await caller.ask()
            metrics = await broker.metrics()

    assert {(status, code) for status, code, _ in (*(task.result() for task in waited), *at_once)} == {
        (503, "overloaded")
    }
    assert min(task.result()[2] for task in waited) > 4.5
    assert max(seconds for *_, seconds in at_once) < AT_ONCE_SECONDS
    assert {(status, code) for status, code, _ in (*end, first)} == {(200, "")}
    assert 'tokenbroker_requests_shed_total{reason="waited"} 3.0' in metrics
    assert 'tokenbroker_requests_shed_total{reason="too_late"} 5.0' in metrics


async def test_callers_who_hang_up_leave_the_queue(installed: Lab, tenant: Tenant) -> None:
    """And no token is minted for them when the API server goes on."""
    async with BrokerProcess.start(installed, "hung-up", queue=FEW) as broker:
        noisy, quiet = await two_clients(broker, tenant)
        async with callers(broker, noisy, quiet) as (stormer, caller):
            installed.cluster.api_server.pause()
            try:
                calls = [asyncio.create_task(stormer.ask()) for _ in range(4)]
                await until(lambda: in_flight(broker, 4), what="all slots are taken")
                gone = [asyncio.create_task(stormer.ask()) for _ in range(8)]
                await until(lambda: waits(broker, 8), what="eight wait")
                for task in gone:
                    task.cancel()
                await until(lambda: waits(broker, 0), what="nobody waits any more")
            finally:
                installed.cluster.api_server.resume()
            await asyncio.gather(*calls)
            await caller.ask()

    assert len([record for record in broker.records(noisy.id) if record["event"] == "token.issued"]) == 4


async def test_deliveries_beyond_the_queue_are_refused_and_leave_with_their_callers(
    installed: Lab, tenant: Tenant
) -> None:
    """While Vault hangs; who wants nothing of it is served as ever."""
    vault = patient(installed, "delivering")
    async with BrokerProcess.start(installed, "delivering", queue=FEW, vault=vault) as broker:
        await tenant.account("reader")
        kept = await tenant.client("kept", {"serviceAccount": {"name": "reader"}, "vault": {}})
        await broker.until_ready(kept.id)
        async with callers(broker, kept) as (caller,):
            await until(lambda: delivers(caller), what="a version is written", programs=(broker.program,))
            installed.vault.pause()
            try:
                waiting = [asyncio.create_task(caller.ask(DELIVER)) for _ in range(4 + 8)]
                await until(lambda: waits(broker, 8), what="four are under way, and eight wait")
                refused = await asyncio.gather(*(caller.ask(DELIVER) for _ in range(5)))
                issued = [await caller.ask() for _ in range(5)]
                for task in waiting:
                    task.cancel()
                await until(lambda: waits(broker, 0), what="nobody waits any more")
            finally:
                installed.vault.resume()

    assert {(status, code) for status, code, _ in refused} == {(503, "overloaded")}
    assert {status for status, *_ in issued} == {200}


def patient(installed: Lab, name: str) -> dict[str, object]:
    """Return how a broker reaches Vault, with more patience than a test needs."""
    vault, token = installed.vault, installed.folder / name / "vault-token"
    files = {"ca_file": str(vault.ca_file), "token_file": str(token)}
    return {"address": vault.address, **files, "timeout_seconds": 30}


async def delivers(caller: Caller) -> bool:
    """Tell whether a version can be written."""
    return (await caller.ask(DELIVER))[0] == 200


async def test_introspection_and_revocation_take_turns_too(installed: Lab, tenant: Tenant) -> None:
    """What they ask the API server is refused like a token, in the words of OAuth where those are spoken."""
    async with BrokerProcess.start(installed, "introspecting", queue=FEW | {"wait_seconds": 0.2}) as broker:
        client, _ = await two_clients(broker, tenant)
        token = (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).body["token"]
        installed.cluster.api_server.pause()
        try:
            asked = [introspect(broker, client, token) for _ in range(4 + 8 + 5)]
            calls = [asyncio.create_task(one) for one in asked]
            done, _ = await asyncio.wait(calls, timeout=3)
            refused = [task.result() for task in done]
            ended = await broker.call("DELETE", f"/v1/tokens/{'0' * 24}", auth=client.auth)
        finally:
            installed.cluster.api_server.resume()
        await asyncio.gather(*calls)

    assert len(refused) == 8 + 5
    assert {(reply.status, reply.body["error"], reply.body["code"]) for reply in refused} == {
        (503, "temporarily_unavailable", "overloaded")
    }
    assert (ended.status, ended.body["code"]) == (503, "overloaded")


async def test_a_flood_of_connections_is_refused_and_passes(installed: Lab, tenant: Tenant) -> None:
    """Those inside are served meanwhile, metrics are, too, and the next one is when the flood is over."""
    listen = {"port": free_port(), "max_connections": 20}
    async with BrokerProcess.start(installed, "flooded", listen=listen) as broker:
        client, _ = await two_clients(broker, tenant)
        async with callers(broker, client) as (caller,):
            before = await caller.ask()
            port = urlsplit(broker.url).port
            flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
            during = await caller.ask()
            refused = [await asyncio.wait_for(reader.read(), 5) for reader, _ in flood[30:]]
            metrics = await broker.metrics()
            for _, writer in flood:
                writer.close()
            await until(lambda: served(broker, client), what="somebody new is served")

    assert (before[0], during[0]) == (200, 200)
    assert all(answer.startswith(b"HTTP/1.1 503 ") and b"overloaded" in answer for answer in refused)
    assert 'tokenbroker_requests_shed_total{reason="connections"} 0.0' not in metrics


async def introspect(broker: BrokerProcess, client: Registered, token: str) -> Reply:
    """Ask whether a token is good."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    form = f"token={token}".encode()
    return await broker.call("POST", "/oauth2/introspect", auth=client.auth, data=form, headers=headers)


async def served(broker: BrokerProcess, client: Registered) -> bool:
    """Tell whether a new connection gets a token."""
    try:
        return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).status == 200
    except aiohttp.ClientError:
        return False


async def waits(broker: BrokerProcess, number: int) -> bool:
    """Tell whether so many requests wait."""
    return f"tokenbroker_requests_waiting {float(number)}" in await broker.metrics()


async def refusals(broker: BrokerProcess, number: int) -> bool:
    """Tell whether so many requests had waited in vain."""
    return f'tokenbroker_requests_shed_total{{reason="waited"}} {float(number)}' in await broker.metrics()


async def in_flight(broker: BrokerProcess, number: int) -> bool:
    """Tell whether so many requests are being answered."""
    return f"tokenbroker_requests_in_flight {float(number)}" in await broker.metrics()
