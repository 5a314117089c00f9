"""What clients see when a neighbour fails, and that it passes."""

import asyncio
import os
import signal
from urllib.parse import urlsplit

import pytest

from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.lab import Lab
from tests.support.marks import own_cluster
from tests.support.processes import until


async def impatient(lab: Lab) -> dict[str, object]:
    """Return the kubernetes section for a broker that gives the API server one second."""
    token = lab.folder / "impatient-token"
    token.write_text(await lab.cluster.token_for("tokenbroker", "tokenbroker"))
    return {
        "server": lab.cluster.server,
        "ca_file": str(lab.cluster.ca_file),
        "token_file": str(token),
        "timeout_seconds": 1,
    }


@own_cluster
async def test_an_api_server_that_hangs_is_answered_in_time(installed: Lab, tenant: Tenant) -> None:
    """Frozen, it costs the caller a second and a 504; thawed, all is well at once."""
    async with BrokerProcess.start(installed, "hanging", kubernetes=await impatient(installed)) as broker:
        client = await served_client(broker, tenant)
        installed.cluster.api_server.pause()
        try:
            slow = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        finally:
            installed.cluster.api_server.resume()
        well = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        metrics = await broker.metrics()

    assert (slow.status, slow.body["code"]) == (504, "kubernetes_timeout")
    assert int(slow.headers["Retry-After"]) > 0
    assert well.status == 200
    assert 'tokenbroker_token_request_failures_total{reason="kubernetes_timeout"} 1.0' in metrics


@own_cluster
async def test_an_api_server_that_is_down_is_a_503_until_it_is_back(installed: Lab, tenant: Tenant) -> None:
    """Killed and started again, it needs no restart of the broker, and changes are followed again."""
    async with BrokerProcess.start(installed, "down", kubernetes=await impatient(installed)) as broker:
        client = await served_client(broker, tenant)
        await installed.cluster.api_server.kill()
        down = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        alive = await broker.metrics()
        installed.cluster.api_server.start()
        await installed.cluster.ready()

        async def issued() -> bool:
            return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).status == 200

        await until(issued, what="tokens are issued again", programs=(broker.program,))
        await tenant.patch("reader", {"suspend": True})

        async def suspended() -> bool:
            return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).status == 403

        await until(suspended, what="the watch follows again", programs=(broker.program,))

    assert (down.status, down.body["code"]) == (503, "kubernetes_unavailable")
    assert "Retry-After" in down.headers
    assert "tokenbroker_build_info" in alive


async def test_what_cannot_be_written_down_is_not_handed_out(installed: Lab, tenant: Tenant) -> None:
    """With a full audit log the answer is 503, without a token."""
    async with BrokerProcess.start(installed, "full", audit={"file": "/dev/full"}) as broker:
        client = await tenant.ready_client("reader")
        await until(lambda: refused_with(broker, client, "audit_unavailable"), what="the grant is prepared")

        reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
        metrics = await broker.metrics()

    assert (reply.status, reply.body["code"]) == (503, "audit_unavailable")
    assert "token" not in reply.body
    assert "tokenbroker_audit_failures_total 0.0" not in metrics
    assert "tokenbroker_tokens_issued_total{" not in metrics


@own_cluster
async def test_a_stop_finishes_requests_in_flight(installed: Lab, tenant: Tenant) -> None:
    """After SIGTERM nobody new gets in, and who is in gets the token."""
    async with BrokerProcess.start(installed, "stopping") as broker:
        client = await served_client(broker, tenant)
        installed.cluster.api_server.pause()
        try:
            request = asyncio.create_task(broker.call("POST", "/v1/tokens", {}, auth=client.auth))
            await until(lambda: waiting(broker), what="the request is in flight")
            os.kill(broker.program.pid, signal.SIGTERM)
            await until(lambda: closed(broker), what="the listener is closed")
        finally:
            installed.cluster.api_server.resume()
        reply = await request

    assert reply.status == 200
    assert reply.body["token"]


async def served_client(broker: BrokerProcess, tenant: Tenant) -> Registered:
    """Make a client that this very broker serves: Ready may be the word of the other one that runs."""
    client = await tenant.ready_client("reader")
    await until(lambda: gets_a_token(broker, client), what="the grant is prepared", programs=(broker.program,))
    return client


async def refused_with(broker: BrokerProcess, client: Registered, code: str) -> bool:
    """Tell whether a client is refused for that reason."""
    return bool((await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).body.get("code") == code)


async def waiting(broker: BrokerProcess) -> bool:
    """Tell whether a request has come in and was not answered: the broker talks to the API server."""
    return "tokenbroker_requests_in_flight 1.0" in await broker.metrics()


async def closed(broker: BrokerProcess) -> bool:
    """Tell whether nobody new gets in."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(broker.url).port)
    except OSError:
        return True
    writer.close()
    return False


@pytest.mark.usefixtures("broker")
async def test_an_invalid_resource_that_was_sneaked_in_is_ignored(installed: Lab, tenant: Tenant) -> None:
    """Where the schema was loosened, the broker still decides: it serves the others, and that one not."""
    client = await tenant.ready_client("reader")
    other = await tenant.client("other", {"serviceAccount": {"name": "reader"}})
    await tenant.until_reason("other", "Ready")
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    _, strict = await installed.cluster.request("GET", CRD)
    [version] = strict["spec"]["versions"]
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}}
    await installed.cluster.request("PATCH", CRD, {"spec": {"versions": [version | {"schema": schema}]}})
    try:
        await until(lambda: sneaked_in(tenant), what="the field is stored")
        # Watches from before still prune by the old schema; a broker that starts now sees what is stored.
        async with BrokerProcess.start(installed, "sneaked") as late:
            await tenant.until_reason("reader", "InvalidSpec")
            ignored = await late.call("POST", "/v1/tokens", {}, auth=client.auth)
            await until(lambda: gets_a_token(late, other), what="the other one is served")
        condition = await tenant.condition("reader")
    finally:
        await installed.cluster.request("PATCH", CRD, {"spec": {"versions": [version]}})

    assert ignored.status == 401
    assert "limitToMondays" in condition["message"]


CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tokenclients.tokenbroker.dev"


async def sneaked_in(tenant: Tenant) -> bool:
    """Write a field that the real schema does not know, and tell whether it was kept."""
    path = f"{tenant.path}/reader"
    _, stored = await tenant.cluster.request("PATCH", path, {"spec": {"limitToMondays": True}})
    return bool(stored.get("spec", {}).get("limitToMondays"))


async def gets_a_token(broker: BrokerProcess, client: Registered) -> bool:
    """Tell whether a client is served."""
    return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).status == 200
