"""What callers get when the API server answers TokenRequests badly: soon, counted, and never a token."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Registered, Reply, Tenant
from tests.support.cluster import Cluster
from tests.support.fault_proxy import FaultProxy
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.scripted import Reply as Fault
from tests.support.scripted import answer, drips, floods, hangs, resets, says, says_and_closes, scripted

DEADLINE_SECONDS = 1
WORDS = "upstream-words"
STATUS = json.dumps({"kind": "Status", "message": WORDS, "details": {"kind": "secrets"}}).encode()
UNAVAILABLE = (503, "kubernetes_unavailable")
REJECTED = (503, "kubernetes_rejected")
TIMEOUT = (504, "kubernetes_timeout")


@dataclass(frozen=True, slots=True)
class Behind:
    """A broker behind the proxy, and a client that it serves."""

    proxy: FaultProxy
    broker: BrokerProcess
    client: Registered

    async def ask(self) -> Reply:
        """Ask for a token."""
        return await self.broker.call("POST", "/v1/tokens", {}, auth=self.client.auth)

    async def failures(self, reason: str) -> float:
        """Return how many TokenRequests failed so far for a reason."""
        start = f'tokenbroker_token_request_failures_total{{reason="{reason}"}} '
        lines = (await self.broker.metrics()).splitlines()
        return next((float(line.removeprefix(start)) for line in lines if line.startswith(start)), 0.0)

    def issued(self) -> int:
        """Return how many tokens were recorded as handed out."""
        return self.broker.audit_file.read_text().count('"token.issued"')


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def behind(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Behind]:
    """Run a broker that reaches the API server through the proxy, and gives it one second."""
    folder: Path = tmp_path_factory.mktemp("proxy")
    token = folder / "token"
    token.write_text(await installed.cluster.token_for("tokenbroker", "tokenbroker"))
    async with FaultProxy.start(installed.cluster, folder) as proxy:
        kubernetes = {
            "server": proxy.url,
            "ca_file": str(proxy.ca_file),
            "token_file": str(token),
            "timeout_seconds": DEADLINE_SECONDS,
        }
        async with BrokerProcess.start(installed, "behind-proxy", kubernetes=kubernetes) as broker:
            tenant = await Tenant.create(installed.cluster, "behind-proxy")
            served = Behind(proxy, broker, await tenant.ready_client("reader"))
            await until(lambda: _works(served), what="the broker serves the client", programs=(broker.program,))
            yield served


async def _works(served: Behind) -> bool:
    return (await served.ask()).status == 200


@pytest.fixture(autouse=True)
def _faultless_afterwards(behind: Behind) -> Iterator[None]:
    yield
    behind.proxy.fault = None


async def _hurt(behind: Behind, fault: Fault, expected: tuple[int, str]) -> Reply:
    """Ask once with a fault and once without, and check all that holds for every fault."""
    issued, failed = behind.issued(), await behind.failures(expected[1])
    came = behind.proxy.token_requests
    behind.proxy.fault = fault
    started = time.monotonic()
    reply = await behind.ask()
    took = time.monotonic() - started
    came = behind.proxy.token_requests - came
    behind.proxy.fault = None

    assert (reply.status, reply.body["code"]) == expected
    assert took < DEADLINE_SECONDS + 1
    assert came <= 2, "one request of a client became a storm"
    assert WORDS not in json.dumps(reply.body)
    assert "token" not in reply.body
    assert behind.issued() == issued
    assert await behind.failures(expected[1]) >= failed + 1
    assert (await behind.ask()).status == 200, "a fault that has passed still hurts"
    return reply


@pytest.mark.parametrize(
    ("fault", "expected", "retry_after"),
    [
        (says(answer(429, STATUS, [b"Retry-After: 7"])), UNAVAILABLE, "7"),
        (says(answer(429, STATUS)), UNAVAILABLE, "2"),
        (says(answer(429, STATUS, [b"Retry-After: 86400"])), UNAVAILABLE, "60"),
        (says(answer(429, STATUS, [b"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"])), UNAVAILABLE, "2"),
        (says(answer(500, STATUS)), UNAVAILABLE, "2"),
        (says(answer(502, b"<html>upstream-words</html>")), UNAVAILABLE, "2"),
        (says(answer(503, STATUS, [b"Retry-After: 5"])), UNAVAILABLE, "5"),
        (says(answer(504, STATUS)), UNAVAILABLE, "2"),
        (says(answer(401, STATUS)), UNAVAILABLE, "10"),
        (resets(), UNAVAILABLE, "2"),
        (says_and_closes(), UNAVAILABLE, "2"),
        (says_and_closes(b"HTTP/1.1 201 Created\r\nContent-Le"), UNAVAILABLE, "2"),
        (says_and_closes(answer(201, b'{"status": {"token": "eyJ')[:-4]), UNAVAILABLE, "2"),
        (says(b"upstream-words, but not HTTP\r\n\r\n"), UNAVAILABLE, "2"),
        (says(answer(201, b"<html>upstream-words</html>")), UNAVAILABLE, "2"),
        (says(answer(201, b"[]")), UNAVAILABLE, "2"),
        (says(answer(201, b'{"status": {}}')), UNAVAILABLE, "2"),
        (says(answer(201, b'{"status": {"token": "upstream-words"}}')), UNAVAILABLE, "2"),
        (says(answer(201, b'{"status": {"token": 7}}')), UNAVAILABLE, "2"),
        (says(answer(200, b"{}")), REJECTED, None),
        (says(answer(204, b"")), REJECTED, None),
        (says(answer(422, STATUS)), REJECTED, None),
        (hangs(), TIMEOUT, "2"),
        (drips(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n", b"x"), TIMEOUT, "2"),
        (drips(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), TIMEOUT, "2"),
    ],
)
async def test_bad_answer_is_a_refusal_in_time(
    behind: Behind, fault: Fault, expected: tuple[int, str], retry_after: str | None
) -> None:
    """503 or 504 within the deadline, with a time to wait; nothing of the answer shows, and it passes at once."""
    reply = await _hurt(behind, fault, expected)

    assert reply.headers.get("Retry-After") == retry_after


async def test_endless_answer_is_cut_off(behind: Behind) -> None:
    """It ends at the bound of its size or at the deadline, whichever comes first."""
    behind.proxy.fault = floods(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + b"X" * 100_000)
    reply = await behind.ask()

    assert (reply.status, reply.body["code"]) in {UNAVAILABLE, TIMEOUT}


async def test_redirect_is_not_followed(behind: Behind) -> None:
    """The broker's credential does not travel to wherever an answer points."""
    async with scripted(says(answer(201))) as thief:
        away = says(answer(307, b"", [f"Location: {thief.url}/api/v1/x".encode()]))
        await _hurt(behind, away, REJECTED)

    assert thief.connections == 0


@pytest.mark.parametrize(
    ("account", "audience", "secret", "expected"),
    [
        ("reader", "elsewhere", "anchor", REJECTED),
        ("default", "", "anchor", REJECTED),
        ("reader", "", "another", REJECTED),
        ("reader", "", "", UNAVAILABLE),
    ],
    ids=["other audience", "other account", "bound to another Secret", "not bound"],
)
async def test_token_that_was_not_asked_for_is_thrown_away(
    behind: Behind, installed: Lab, account: str, audience: str, secret: str, expected: tuple[int, str]
) -> None:
    """A token for other ends, however valid, reaches nobody."""
    spec: dict[str, object] = {"expirationSeconds": 900, "audiences": [audience] if audience else []}
    if secret:
        spec["boundObjectRef"] = await _secret(installed.cluster, secret)
    path = f"/api/v1/namespaces/behind-proxy/serviceaccounts/{account}/token"
    status, minted = await installed.cluster.request("POST", path, {"spec": spec})
    token = minted["status"]["token"]
    reply = await _hurt(behind, says(answer(201, json.dumps(minted).encode())), expected)

    assert status == 201
    assert token not in json.dumps(reply.body)
    assert token not in behind.broker.program.log.read_text()


async def _secret(cluster: Cluster, which: str) -> dict[str, object]:
    """Return a reference to the client's anchor, or to another Secret."""
    path = "/api/v1/namespaces/behind-proxy/secrets"
    if which == "anchor":
        _, listed = await cluster.request("GET", f"{path}?fieldSelector=type%3Dtokenbroker.dev/anchor")
        metadata = listed["items"][0]["metadata"]
    else:
        _, made = await cluster.request("POST", path, {"metadata": {"generateName": "another-"}})
        metadata = made["metadata"]
    return {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}


async def test_many_callers_make_no_storm(behind: Behind) -> None:
    """An overloaded API server gets one request for each that came, and no more when it says so."""
    came = behind.proxy.token_requests
    behind.proxy.fault = says(answer(429, STATUS, [b"Retry-After: 1"]))
    replies = await asyncio.gather(*(behind.ask() for _ in range(50)))

    assert {reply.status for reply in replies} == {503}
    # The broker's own trial of a grant that another test hurt may fall into this one.
    assert 50 <= behind.proxy.token_requests - came <= 52


async def test_connection_that_was_closed_while_idle_costs_nobody_anything(behind: Behind) -> None:
    """The server ends a kept connection on the next request, as it may: that request is sent once more."""
    assert (await behind.ask()).status == 200
    came = behind.proxy.token_requests

    async def once(writer: asyncio.StreamWriter) -> None:
        behind.proxy.fault = None
        writer.close()

    behind.proxy.fault = once
    reply = await behind.ask()

    assert reply.status == 200
    assert 2 <= behind.proxy.token_requests - came <= 4
