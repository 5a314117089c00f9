"""What a replica that does not lead asks of the API server: its watches, and nothing more with more clients."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.killing_proxy import KillingProxy
from tests.support.kills import Bench
from tests.support.lab import Lab
from tests.support.processes import until

FEW, MANY = 3, 40
GRANT: dict[str, Any] = {"serviceAccount": {"name": "reader"}, "vault": {"ttl": "1h"}}
QUIET_SECONDS = 4.0
NO_LEASE = {"leases", "selfsubjectaccessreviews"}
"""What is asked again with time, whoever is registered."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A cluster, and a proxy before it that counts what one broker asks."""

    bench: Bench
    tenant: Tenant
    clients: list[Registered]

    async def grow(self, size: int, leader: BrokerProcess) -> None:
        """Register clients until there are so many, and wait until the leader has looked at all of them."""
        for number in range(len(self.clients), size):
            self.clients.append(await self.tenant.client(f"client-{number}", GRANT))
        for client in self.clients:
            await leader.until_ready(client.id)

    async def calls(self, lease: dict[str, Any]) -> Counter[str]:
        """Start a broker behind the proxy, let the last client have a token, change it, and return what was asked."""
        name = f"counted-{secrets.token_hex(4)}"
        lines = self.bench.proxy.arm(lambda line: not NO_LEASE.intersection(line.replace("?", "/").split("/")))
        client, other = self.clients[-1], self.clients[0]
        async with self.bench.broker(name, lease=lease) as broker:
            await until(lambda: _answers(broker, client, 200), what="the last client has a token")
            await self.tenant.patch(other.id.partition("/")[2], {"suspend": True})
            await until(lambda: _answers(broker, other, 403), what="the first is suspended")
            await self.tenant.patch(other.id.partition("/")[2], {"suspend": False})
            await until(lambda: _answers(broker, other, 200), what="and no more")
            await asyncio.sleep(QUIET_SECONDS)  # nothing says that nothing will be asked
        return Counter(_kind(line) for line in lines if not line.endswith("/token"))


async def _answers(broker: BrokerProcess, client: Registered, status: int) -> bool:
    return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).status == status


def _kind(line: str) -> str:
    """Return what is asked for, but for where in its history a watch begins."""
    path, _, query = line.partition("?")
    return f"{path} watched" if "watch=" in query else f"{path}?{query}" if "dryRun" in query else path


@pytest_asyncio.fixture(loop_scope="session")
async def counted(installed: Lab) -> AsyncIterator[Counted]:
    """Listen, and make a namespace with an account."""
    name = f"following-{secrets.token_hex(4)}"
    folder = installed.processes.folder / name
    folder.mkdir()
    tenant = await Tenant.create(installed.cluster, name)
    await tenant.account("reader")
    async with KillingProxy.start(installed.cluster, folder) as proxy:
        assert isinstance(proxy, KillingProxy)
        yield Counted(Bench(installed, proxy), tenant, [])


async def test_what_a_follower_asks_does_not_grow_with_clients(counted: Counted) -> None:
    """With many it is what it is with few, call by call; of one that leads it is not."""
    name = f"follows-{secrets.token_hex(4)}"
    lease = {"name": name, "duration_seconds": 15}
    async with BrokerProcess.start(counted.bench.lab, name, lease=lease) as leader:
        await counted.grow(FEW, leader)
        few = await counted.calls(lease)
        await counted.grow(MANY, leader)
        many = await counted.calls(lease)
    leading = await counted.calls({"name": f"leads-{secrets.token_hex(4)}", "duration_seconds": 15})

    assert many == few
    assert few.total() > 0
    assert leading.total() > few.total() + MANY


async def test_who_takes_over_removes_copies_that_nobody_wants(counted: Counted) -> None:
    """The leader was killed, and a client went meanwhile, without its finalizer: nobody else lists what is in Vault."""
    lab, name = counted.bench.lab, f"takes-{secrets.token_hex(4)}"
    lease = {"name": name, "duration_seconds": 5}
    async with (
        BrokerProcess.start(lab, f"{name}-first", lease=lease) as first,
        BrokerProcess.start(lab, f"{name}-second", lease=lease) as second,
    ):
        await counted.grow(1, first)
        resource = f"{counted.tenant.path}/client-0"
        copy = f"secret/metadata/tokenbroker/lab/{counted.clients[0].id}/default"

        async def kept(status: int = 200) -> bool:
            return (await lab.vault.api("GET", copy))[0] == status

        await until(kept, what="there is a copy")
        await first.program.kill()
        await lab.cluster.request("PATCH", resource, {"metadata": {"finalizers": None}})
        status, _ = await lab.cluster.request("DELETE", resource)
        await until(lambda: kept(404), what="the copy is gone", programs=(second.program,))

    assert status == 200
