"""What malformed and hostile requests get: always a problem document, never a stack trace."""

import asyncio
import json
from urllib.parse import urlsplit

import pytest

from tests.support.broker import BrokerProcess, Tenant, basic
from tests.support.lab import Lab
from tests.support.processes import free_port

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def auth(broker: BrokerProcess, installed: Lab) -> tuple[str, str]:
    """Return the credentials of a client, made once."""
    tenant = await Tenant.create(installed.cluster, "bad-input")
    registered = getattr(broker, "_bad_input", None) or (await tenant.ready_client("caller")).auth
    broker._bad_input = registered  # type: ignore[attr-defined]
    return registered


@pytest.mark.parametrize(
    ("data", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "invalid_request"),
        (b'"text"', JSON, 400, "invalid_request"),
        (b'{"ttl":"15m","ttl":"1h"}', JSON, 400, "invalid_request"),
        (b'{"ttl":NaN}', JSON, 400, "invalid_request"),
        (b'{"ttl":"15m","x":1}', JSON, 400, "invalid_request"),
        (b'{"ttl":{"a":1}}', JSON, 400, "invalid_request"),
        (b'{"deliver":"pigeon"}', JSON, 400, "invalid_request"),
        (b'{"deliver":"vault"}', JSON, 403, "delivery_not_configured"),
        (b'{"deliver":"vault","ttl":"15m"}', JSON, 400, "invalid_request"),
        (b"[" * 8000 + b"]" * 8000, JSON, 400, "invalid_request"),
        (b"\xff\xfe", JSON, 400, "invalid_request"),
        (b"ttl=15m", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        (b" " * 1_000_000, JSON, 413, "body_too_large"),
    ],
)
async def test_a_malformed_body_is_refused(
    broker: BrokerProcess, auth: tuple[str, str], data: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Each gets its own status and code, and no more than a sentence."""
    reply = await broker.call("POST", "/v1/tokens", auth=auth, data=data, headers=headers)

    assert (reply.status, reply.body["code"]) == (status, code)
    assert "Traceback" not in json.dumps(reply.body)


@pytest.mark.parametrize("path", ["/v1/tokens", "/v1/grants"])
async def test_a_wrong_method_is_told_the_right_one(broker: BrokerProcess, path: str) -> None:
    """405 comes with Allow, as RFC 9110 wants it."""
    reply = await broker.call("PUT", path)

    assert (reply.status, reply.body["code"]) == (405, "method_not_allowed")
    assert reply.headers["Allow"] in {"POST", "GET"}


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/tokens/", "/metrics"])
async def test_an_unknown_address_is_a_problem_document(broker: BrokerProcess, path: str) -> None:
    """Unknown addresses get 404 with a code; metrics are not on this port."""
    reply = await broker.call("GET", path)

    assert (reply.status, reply.body["code"]) == (404, "route_unknown")


@pytest.mark.parametrize("client", ["..", "a/b/c", "%2e%2e/x", "null", "/", "Ä/ö", "x" * 500 + "/y"])
async def test_a_client_id_that_cannot_be_one_is_a_stranger(broker: BrokerProcess, client: str) -> None:
    """Ids are looked up as written, or not at all."""
    reply = await broker.call("POST", "/v1/tokens", auth=(client, "tbs_" + "A" * 49))

    assert (reply.status, reply.body["code"]) == (401, "invalid_client")


async def test_a_body_that_drips_is_cut_off(installed: Lab, auth: tuple[str, str]) -> None:
    """Past the deadline the answer is 408 and the connection is closed, however lively the body is."""
    tenant = Tenant(installed.cluster, "bad-input")
    listen = {"port": free_port(), "body_timeout_seconds": 0.5}
    async with BrokerProcess.start(installed, "dripping", listen=listen) as broker:
        await tenant.until_reason("caller", "Ready")
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(broker.url).port)
        head = f"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(*auth)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{".encode())
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
