"""The trace of a request, on its way through a real broker to a real API server."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Registered, Tenant, basic
from tests.support.fault_proxy import FaultProxy, Server
from tests.support.lab import Lab
from tests.support.scripted import Reply as Fault

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"
FORGED = f"00-{TRACE}-{PARENT}-01-<b>forged</b>"
NAMED = {"trace_id": TRACE, "parent_id": PARENT}
OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class Recording(FaultProxy):
    """Keeps what comes, with its body, and passes all of it on."""

    def __init__(self, server: Server, ca_file: Path) -> None:
        super().__init__(server, ca_file)
        self.seen: list[bytes] = []

    def _fault_for(self, request: bytes) -> Fault | None:
        self.seen.append(request)
        return super()._fault_for(request)


@dataclass(frozen=True, slots=True)
class Traced:
    """A broker behind the proxy, and a client of it."""

    proxy: Recording
    broker: BrokerProcess
    client: Registered

    async def ask(self, *headers: str, body: dict[str, Any] | None = None) -> int:
        """Ask over one connection, once with each header (none where it is empty), and return the last status."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            for header in headers:
                sent = {"Authorization": basic(*self.client.auth)} | ({"traceparent": header} if header else {})
                async with session.post(self.broker.url + "/v1/tokens", json=body or {}, headers=sent) as answer:
                    await answer.read()
        return answer.status

    def records(self) -> list[dict[str, Any]]:
        """Return the audit records of the client."""
        return self.broker.records(self.client.id)

    def mints(self) -> list[bytes]:
        """Return the TokenRequests of the client's namespace that came: the broker tries out others by itself."""
        path = f"/namespaces/{self.client.id.partition('/')[0]}/serviceaccounts/".encode()
        return [request for request in self.proxy.seen if b"/token HTTP/" in request and path in request]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    """Run a broker that reaches the API server through the proxy."""
    folder: Path = tmp_path_factory.mktemp("traced")
    token = folder / "token"
    token.write_text(await installed.cluster.token_for("tokenbroker", "tokenbroker"))
    async with Recording.start(installed.cluster, folder) as proxy:
        assert isinstance(proxy, Recording)
        kubernetes = {"server": proxy.url, "ca_file": str(proxy.ca_file), "token_file": str(token)}
        async with BrokerProcess.start(installed, "traced", kubernetes=kubernetes) as broker:
            tenant = await Tenant.create(installed.cluster, "traced")
            client = await tenant.ready_client("web")
            await broker.until_ready(client.id)
            yield Traced(proxy, broker, client)


async def test_a_trace_is_written_down_and_passed_on(traced: Traced) -> None:
    """The audit record names it, and so does the TokenRequest; the next request on the connection has none."""
    mints = len(traced.mints())
    status = await traced.ask(HEADER, "")
    [first, second] = traced.records()[-2:]
    [with_trace, without] = traced.mints()[mints:]

    assert status == 200
    assert NAMED.items() <= first.items()
    assert f"\r\ntraceparent: {HEADER}\r\n".encode() in with_trace
    assert not NAMED.keys() & second.keys()
    assert b"traceparent" not in without


async def test_a_refusal_is_found_by_its_trace(traced: Traced) -> None:
    """In the log and in the audit record."""
    status = await traced.ask(HEADER, body={"ttl": "90h"})
    lines = [json.loads(line) for line in traced.broker.program.log.read_text().splitlines() if TRACE in line]

    assert status == 422
    assert [(line["event"], line["reason"]) for line in lines] == [("http.refused", "ttl_out_of_range")]
    assert NAMED.items() <= lines[0].items()
    assert NAMED.items() <= traced.records()[-1].items()


async def test_a_malformed_header_goes_nowhere(traced: Traced) -> None:
    """The request is served as if it had none, and nothing of what it said is written anywhere."""
    log, mints = len(traced.broker.program.log.read_text()), len(traced.mints())
    served = await traced.ask(FORGED)
    refused = await traced.ask(FORGED, body={"ttl": "90h"})

    assert (served, refused) == (200, 422)
    assert all(not NAMED.keys() & record.keys() for record in traced.records()[-2:])
    assert "forged" not in traced.broker.audit_file.read_text()
    assert "forged" not in traced.broker.program.log.read_text()
    assert TRACE not in traced.broker.program.log.read_text()[log:]
    assert b"traceparent" not in b"".join(traced.mints()[mints:])


async def test_a_slow_request_is_found_among_traces(traced: Traced) -> None:
    """Measured times have the trace as exemplar, for who asks for OpenMetrics."""
    await traced.ask(HEADER)
    async with aiohttp.ClientSession() as session:
        url = traced.broker.ops_url + "/metrics"
        async with session.get(url, headers=OPEN_METRICS) as answer:
            assert answer.content_type == "application/openmetrics-text"
            lines = (await answer.text()).splitlines()
    exemplars = [line for line in lines if f'# {{trace_id="{TRACE}"}}' in line]

    assert any(line.startswith("tokenbroker_request_duration_seconds_bucket") for line in exemplars)
    assert any(line.startswith("tokenbroker_token_request_duration_seconds_bucket") for line in exemplars)
    assert TRACE not in await traced.broker.metrics()
