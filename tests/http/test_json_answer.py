"""The answer that is sent in one piece, and the cases in which aiohttp sends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web

from broker.http.json_answer import JsonAnswer
from broker.http.listeners import Listener
from tests.support.malformed import MALFORMED
from tests.support.processes import free_port

BODY = b'{"n":1}'


async def answer(request: web.BaseRequest) -> web.Response:
    """Answer with a document; the query says whether it is the last one on the connection."""
    response = JsonAnswer({"n": 1})
    if "last" in request.query:
        response.force_close()
    return response


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Listen, and connect."""
    port = free_port()
    async with Listener("api", answer, "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=1):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """Read the head of an answer."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines if line)


async def test_a_connection_serves_one_request_after_the_other() -> None:
    """Each answer is whole, and says nothing of what the broker is made of."""
    async with connected() as (reader, writer):
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            status, headers = await head(reader)
            date = parsedate_to_datetime(headers.pop("Date"))

            assert status == "HTTP/1.1 200 OK"
            assert headers == {
                "Content-Type": "application/json",
                "Cache-Control": "no-store",
                "Server": "tokenbroker",
                "Content-Length": str(len(BODY)),
            }
            assert abs(date - datetime.now(UTC)) < timedelta(seconds=5)
            assert await reader.readexactly(len(BODY)) == BODY


@pytest.mark.parametrize(
    ("request_line", "extra"),
    [
        (b"GET /?last=1 HTTP/1.1", b""),
        (b"GET / HTTP/1.1", b"Connection: close\r\n"),
        (b"GET / HTTP/1.0", b""),
    ],
)
async def test_the_last_answer_says_so_and_ends_the_connection(request_line: bytes, extra: bytes) -> None:
    """Whoever ends it: the broker, the caller, or HTTP/1.0."""
    async with connected() as (reader, writer):
        writer.write(request_line + b"\r\nHost: x\r\n" + extra + b"\r\n")
        _, headers = await head(reader)
        rest = await asyncio.wait_for(reader.read(), 5)

        assert rest == BODY
        assert headers["Content-Type"] == "application/json"
        assert headers["Cache-Control"] == "no-store"
        assert headers.get("Connection") == (None if b"1.0" in request_line else "close")


async def test_who_reads_nothing_is_answered_no_further() -> None:
    """Else his requests, one behind the other, would fill the memory with answers."""
    asked, answered = b"GET /?large=1 HTTP/1.1\r\nHost: x\r\n\r\n" * 500, Counted()
    port = free_port()
    async with Listener("api", answered, "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=0.1):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        for _ in range(20):
            writer.write(asked)
        before = -1
        while before != answered.number:
            before = answered.number
            await asyncio.sleep(0.3)
        writer.transport.abort()

    assert 0 < before < 5000


class Counted:
    """Counts how often it answered, with 2 kB each time."""

    def __init__(self) -> None:
        self.number = 0

    async def __call__(self, _request: web.BaseRequest) -> web.Response:
        """Answer."""
        self.number += 1
        return JsonAnswer({"token": "x" * 2000})


async def test_a_head_request_gets_no_body() -> None:
    """Its length is told all the same (RFC 9110, 9.3.2)."""
    async with connected() as (reader, writer):
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first, _ = await head(reader)
        second, _ = await head(reader)

        assert (first, second) == ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK")
        assert await reader.readexactly(len(BODY)) == BODY
