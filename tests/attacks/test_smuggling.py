"""Requests whose end is in doubt (RFC 9112, 11.2): a proxy in front and the broker must never see different ones.

Each carries a second request where some parsers see a body. The broker answers once and hangs up, or reads the body
as what it is; the hidden request is never carried out.
"""

import asyncio
import re
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Tenant, basic
from tests.support.lab import Lab

HIDDEN = b"GET /openapi.yaml HTTP/1.1\r\nHost: hidden\r\n\r\n"
CHUNKED = b"0\r\n\r\n" + HIDDEN


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def authorization(broker: BrokerProcess, installed: Lab) -> str:
    """Register a client, once."""
    assert await broker.metrics()  # it runs, so that somebody makes the client ready
    tenant = await Tenant.create(installed.cluster, "smuggling")
    return basic(*(await tenant.ready_client("caller")).auth)


async def answers(broker: BrokerProcess, sent: bytes) -> tuple[list[int], bool]:
    """Send bytes and return the statuses that come back within a second, and whether the broker hung up."""
    address = urlsplit(broker.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(sent)
    received, ended = b"", False
    try:
        async with asyncio.timeout(1):
            while chunk := await reader.read(65536):
                received += chunk
            ended = True
    except TimeoutError:
        pass
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)], ended


def post(authorization: str, headers: bytes, body: bytes) -> bytes:
    """Return a request for a token with these lines about its body."""
    start = f"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n".encode()
    return start + b"Content-Type: application/json\r\n" + headers + b"\r\n\r\n" + body


IN_DOUBT = {
    "CL and TE": (b"Content-Length: 5\r\nTransfer-Encoding: chunked", CHUNKED),
    "TE and CL": (b"Transfer-Encoding: chunked\r\nContent-Length: 5", CHUNKED),
    "two CL": (b"Content-Length: 0\r\nContent-Length: 45", HIDDEN),
    "two CL, the longer first": (b"Content-Length: 45\r\nContent-Length: 0", HIDDEN),
    "CL as a list": (b"Content-Length: 0, 45", HIDDEN),
    "CL with a sign": (b"Content-Length: +0", HIDDEN),
    "CL below zero": (b"Content-Length: -1", HIDDEN),
    "CL in hexadecimal": (b"Content-Length: 0x0", HIDDEN),
    "CL with an underscore": (b"Content-Length: 0_0", HIDDEN),
    "CL empty": (b"Content-Length:", HIDDEN),
    "CL beyond 64 bits": (b"Content-Length: 18446744073709551616", HIDDEN),
    "CL in other digits": ("Content-Length: \u0660".encode(), HIDDEN),
    "TE twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", CHUNKED),
    "TE chunked twice": (b"Transfer-Encoding: chunked, chunked", CHUNKED),
    "TE not at the end": (b"Transfer-Encoding: chunked, gzip", CHUNKED),
    "TE unknown": (b"Transfer-Encoding: xchunked", CHUNKED),
    "TE in quotes": (b'Transfer-Encoding: "chunked"', CHUNKED),
    "TE with a space before the colon": (b"Transfer-Encoding : chunked", CHUNKED),
    "TE with a tab": (b"Transfer-Encoding:\x0bchunked", CHUNKED),
    "TE folded": (b"Transfer-Encoding:\r\n chunked", CHUNKED),
    "TE after a bare line feed": (b"X: y\nTransfer-Encoding: chunked", CHUNKED),
    "TE after a bare carriage return": (b"X: y\rTransfer-Encoding: chunked", CHUNKED),
    "TE after a NUL": (b"X: \0\r\nTransfer-Encoding: chunked", CHUNKED),
    "chunk size with a sign": (b"Transfer-Encoding: chunked", b"+0\r\n\r\n" + HIDDEN),
    "chunk size in 0x": (b"Transfer-Encoding: chunked", b"0x0\r\n\r\n" + HIDDEN),
    "chunk size beyond 64 bits": (b"Transfer-Encoding: chunked", b"10000000000000000\r\n\r\n" + HIDDEN),
    "chunk size empty": (b"Transfer-Encoding: chunked", b"\r\n\r\n" + HIDDEN),
    "chunk ended by a bare line feed": (b"Transfer-Encoding: chunked", b"0\n\n" + HIDDEN),
    "chunk longer than said": (b"Transfer-Encoding: chunked", b"2\r\n{}}\r\n0\r\n\r\n" + HIDDEN),
    "chunk extension with a line feed": (b"Transfer-Encoding: chunked", b"0;a\nb\r\n\r\n" + HIDDEN),
}


@pytest.mark.parametrize(("headers", "body"), IN_DOUBT.values(), ids=IN_DOUBT.keys())
async def test_request_smuggling_pairs(broker: BrokerProcess, authorization: str, headers: bytes, body: bytes) -> None:
    """One refusal, and the connection is closed before anybody can take the rest for a request."""
    statuses, ended = await answers(broker, post(authorization, headers, body))

    assert statuses == [400]
    assert ended


async def test_bodies_that_are_clear_are_bodies(broker: BrokerProcess, authorization: str) -> None:
    """The other way round: what a clear length covers is never taken for a request, and what follows it is one."""
    hidden = post(authorization, b"Content-Length: %d" % len(HIDDEN), HIDDEN)
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    chunked = post(authorization, b"Transfer-Encoding: chunked", chunk)
    pipelined = post(authorization, b"Content-Length: 2", b"{}") + HIDDEN

    assert (await answers(broker, hidden))[0] == [400]
    assert (await answers(broker, chunked))[0] == [400]
    assert (await answers(broker, pipelined))[0] == [200, 200]
