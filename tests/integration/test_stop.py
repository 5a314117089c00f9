"""A broker that is told to stop: it says so, serves on until its callers have learnt it, and leaves nothing behind."""

import os
import secrets
import signal

import aiohttp

from tests.support.broker import BrokerProcess, Tenant
from tests.support.lab import Lab
from tests.support.processes import free_port, until

LONG = 120
"""A delay that no test waits for."""
SOON_SECONDS = 15


async def health(broker: BrokerProcess, which: str) -> tuple[int, str]:
    """Return what /livez or /readyz says."""
    async with aiohttp.ClientSession() as session, session.get(f"{broker.ops_url}/{which}") as answer:
        return answer.status, await answer.text()


async def until_ended(broker: BrokerProcess) -> None:
    """Wait until the process is gone."""

    async def ended() -> bool:
        return not broker.program.running

    await until(ended, what="it has ended", seconds=SOON_SECONDS)


def listen() -> dict[str, object]:
    """Return a listener whose stop takes long."""
    return {"port": free_port(), "shutdown_delay_seconds": LONG}


async def test_a_broker_that_is_told_to_stop_serves_on_and_says_so(installed: Lab, tenant: Tenant) -> None:
    """Not ready, alive, and each answer ends its connection; told again it goes at once, and gives the Lease back."""
    name = f"stopping-{secrets.token_hex(4)}"
    lease = {"name": name, "duration_seconds": 60}
    path = f"/apis/coordination.k8s.io/v1/namespaces/tokenbroker/leases/{name}"
    async with BrokerProcess.start(installed, name, listen=listen(), lease=lease) as broker:
        client = await tenant.ready_client("reader")
        await broker.until_ready(client.id)
        before = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        os.kill(broker.program.pid, signal.SIGTERM)

        async def stopping() -> bool:
            return await health(broker, "readyz") == (503, "stopping\n")

        await until(stopping, what="it is not ready any more", programs=(broker.program,))
        alive = await health(broker, "livez")
        after = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        _, held = await installed.cluster.request("GET", path)
        os.kill(broker.program.pid, signal.SIGTERM)
        await until_ended(broker)
        _, given_back = await installed.cluster.request("GET", path)

        assert [(it.status, it.headers.get("Connection")) for it in (before, after)] == [(200, None), (200, "close")]
        assert alive == (200, "ok\n")
        assert held["spec"]["holderIdentity"]
        assert not given_back["spec"].get("holderIdentity")
        assert broker.program.code == 0


async def test_a_broker_in_a_terminal_stops_at_once(installed: Lab) -> None:
    """Whoever presses Ctrl-C has no callers that have to learn anything."""
    async with BrokerProcess.start(installed, f"interrupted-{secrets.token_hex(4)}", listen=listen()) as broker:
        os.kill(broker.program.pid, signal.SIGINT)
        await until_ended(broker)

        assert broker.program.code == 0
