"""What malformed and hostile requests get: always a problem document, never a stack trace."""

import asyncio
import base64
import gzip
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


HEAD = b"POST /v1/tokens HTTP/1.1\r\nHost: a\r\n"
SECRET = b"tbs_" + b"S" * 49
CREDENTIAL = b"Authorization: Basic " + base64.b64encode(b"bad-input/caller:" + SECRET)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"220 mail.example.com ESMTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
        b"BREW /v1/tokens HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/tokens HTTP/9.9\r\nHost: a\r\n" + CREDENTIAL + b"\r\n\r\n",
        b"POST /v1/tokens" + CREDENTIAL + b" HTTP/1.1 HTTP/1.1\r\n\r\n",
        HEAD + CREDENTIAL + b"\x00\r\n\r\n",
        HEAD + CREDENTIAL.replace(b":", b" :") + b"\r\n\r\n",
        HEAD + CREDENTIAL.replace(b"Authorization: ", b"") + b"\r\n\r\n",
        HEAD + CREDENTIAL + b"A" * 9000 + b"\r\n\r\n",
        HEAD + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD + b"Content-Length: many\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n",
    ],
)
async def test_what_is_not_http_is_a_problem_document(broker: BrokerProcess, request_bytes: bytes) -> None:
    """Neither answer nor log repeats what was sent, there is no stack trace, and the connection is closed."""
    logged = len(broker.program.log.read_text())
    answer = await exchange(broker, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    log = broker.program.log.read_text()[logged:]

    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "invalid_request"
    for said in (answer.decode(), log):
        assert "Traceback" not in said
        assert SECRET.decode() not in said
        assert CREDENTIAL[-30:].decode() not in said


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + b"Expect: the-unexpected\r\nContent-Length: 0\r\n\r\n", b"401"),
        (HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", b"401"),
        (b"POST http://elsewhere.example/v1/tokens HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"401"),
        (b"GET /v1/%2e%2e/v1/grants HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"GET /v1/grants%00 HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
    ],
)
async def test_unusual_http_is_a_problem_document_too(
    broker: BrokerProcess, request_bytes: bytes, status: bytes
) -> None:
    """Whatever HTTP allows gets an answer of the broker's own kind."""
    answer = await exchange(broker, request_bytes.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n", 1))
    head, _, body = answer.partition(b"\r\n\r\n")

    assert head.split(b" ", 2)[1] == status
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == int(status)


@pytest.mark.parametrize("line", [b"OPTIONS *", b"CONNECT elsewhere.example:443"])
async def test_target_that_is_no_path_is_not_found(broker: BrokerProcess, line: bytes) -> None:
    """The broker is no proxy, and says nothing of itself to who asks for all of it."""
    answer = await exchange(broker, line + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_answers_do_not_name_the_software_underneath(broker: BrokerProcess) -> None:
    """Versions tell an attacker what to try."""
    answers = [await exchange(broker, HEAD + end) for end in (b"Connection: close\r\n\r\n", b"nonsense\r\n\r\n")]

    assert all(b"\r\nServer: tokenbroker\r\n" in answer for answer in answers)
    assert not any(b"aiohttp" in answer or b"Python" in answer for answer in answers)


async def test_compressed_body_is_not_unpacked(broker: BrokerProcess, auth: tuple[str, str]) -> None:
    """A few kilobytes cannot become gigabytes: what is packed is no JSON."""
    packed = gzip.compress(b'{"ttl": "15m"}' + b" " * 1_000_000)
    head = HEAD + b"Authorization: " + basic(*auth).encode() + b"\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    answer = await exchange(broker, head + packed)

    assert answer.startswith(b"HTTP/1.1 400 ")


async def exchange(broker: BrokerProcess, request_bytes: bytes) -> bytes:
    """Send bytes on a connection of their own, and return all that comes until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(broker.url).port)
    writer.write(request_bytes)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


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
