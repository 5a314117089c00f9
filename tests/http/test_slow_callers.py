"""Callers that take their time, or say nothing: their connections end, and nobody waits for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from broker.http.listeners import Listener
from broker.http.protocol import MAX_HEAD_BYTES
from tests.support.malformed import MALFORMED
from tests.support.processes import free_port

IDLE_SECONDS = 0.6
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def hello(_request: web.BaseRequest) -> web.Response:
    """Answer anything."""
    return web.Response(text="hello")


@asynccontextmanager
async def listening(idle_seconds: float = IDLE_SECONDS) -> AsyncIterator[int]:
    """Run a listener and yield its port."""
    port = free_port()
    async with Listener(
        "api", hello, "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=5, idle_seconds=idle_seconds
    ):
        yield port


async def drip(writer: asyncio.StreamWriter, text: bytes) -> None:
    """Send a text byte by byte, and then over again, until the other side has enough."""
    while True:
        for octet in text:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.02)


async def ended_after(port: int, start: bytes, more: bytes) -> float:
    """Return how many seconds a connection lived that drips. Raises TimeoutError where it lives on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    started = loop.time()
    writer.write(start)
    dripping = asyncio.create_task(drip(writer, more)) if more else None
    try:
        async with asyncio.timeout(10 * IDLE_SECONDS):
            while await reader.read(1024):
                pass
    except ConnectionError:
        pass
    finally:
        if dripping is not None:
            dripping.cancel()
            await asyncio.wait([dripping])
        writer.close()
    return loop.time() - started


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"", b""),
        (b"GET /", b"a"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"a"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-Slow: a\r\n"),
        (REQUEST + b"GET /", b"a"),
    ],
    ids=["silent", "request line", "one header", "many headers", "second request"],
)
async def test_connection_without_a_whole_request_is_closed(start: bytes, more: bytes) -> None:
    """A caller that never finishes its request holds a connection for a bounded time only."""
    async with listening() as port:
        seconds = await ended_after(port, start, more)

    assert 0.5 * IDLE_SECONDS < seconds < 4 * IDLE_SECONDS


async def test_caller_that_is_only_slow_is_served() -> None:
    """What arrives in pieces within the time is a request like any other, and so is the next one."""
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            for part in (REQUEST[:5], REQUEST[5:20], REQUEST[20:]):
                writer.write(part)
                await asyncio.sleep(IDLE_SECONDS / 12)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_stop_does_not_wait_for_connections_without_a_request() -> None:
    """Silent and dripping connections do not hold up a rolling restart."""
    loop = asyncio.get_running_loop()
    async with listening(idle_seconds=60) as port:
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        _, half = await asyncio.open_connection("127.0.0.1", port)
        half.write(b"GET / HTTP/1.1\r\nHost")
        await half.drain()
        stopping = loop.time()
    took = loop.time() - stopping
    silent.close()
    half.close()

    assert took < 2


@pytest.mark.parametrize("before", [b"", REQUEST], ids=["at once", "after a request"])
async def test_a_caller_who_never_ends_his_headers_is_hung_up_on(before: bytes) -> None:
    """A hundred such callers would take the memory of the whole process, before anybody asked who they are."""
    async with listening(idle_seconds=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if before:
            writer.write(before)
            assert b"hello" in await reader.read(4096)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
        sent = 0
        with suppress(ConnectionError):
            async with asyncio.timeout(5):
                for number in range(100):
                    writer.write(f"x-{number}: {'y' * 1024}\r\n".encode())
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    sent += 1
        writer.close()

    assert sent < 2 * MAX_HEAD_BYTES // 1024


async def test_headers_as_large_as_callers_have_them_are_read() -> None:
    """A token and what proxies add."""
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
            for number in range(3):
                writer.write(f"x-{number}: {'y' * 8000}\r\n".encode())
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(b"\r\n")
            assert b"hello" in await reader.read(4096)
        writer.close()
