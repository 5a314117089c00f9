"""A listener that is about to go: what callers on kept connections are told, and for how long it waits for them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from broker.http.listeners import Listener
from tests.support.malformed import MALFORMED
from tests.support.processes import free_port

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
DRAIN_SECONDS = 3.0
SLACK = 2.0
"""Generous on a busy machine, and less than another DRAIN_SECONDS: aiohttp waits twice where it is told so."""


class Held:
    """Answers when it is let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.released = asyncio.Event()

    async def answer(self, _request: web.BaseRequest) -> web.Response:
        """Answer a request in the end."""
        self.asked.set()
        await self.released.wait()
        return web.Response(text="hello")


@asynccontextmanager
async def listening(held: Held, drain_seconds: float = DRAIN_SECONDS) -> AsyncIterator[tuple[Listener, int]]:
    """Run a listener and yield it with its port."""
    port = free_port()
    async with Listener(
        "api", held.answer, "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=drain_seconds
    ) as listener:
        yield listener, port


async def test_answers_keep_their_connection_until_the_broker_is_about_to_go() -> None:
    """Before, one connection serves all requests; then each answer says that it was the last one on its own."""
    held = Held()
    held.released.set()
    async with listening(held) as (listener, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        heads = []
        for parting in (False, False, True):
            if parting:
                listener.part()
            writer.write(REQUEST)
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
            await reader.readexactly(len("hello"))
        rest = await reader.read()
        writer.close()
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
            new = answer.status, answer.headers.get("Connection")

    assert ["connection: close" in head for head in heads] == [False, False, True]
    assert rest == b"", "and it is closed"
    assert new == (200, "close"), "who comes anew meanwhile is served all the same"


async def test_a_request_in_flight_is_told_that_its_connection_ends() -> None:
    """It came before anybody knew, and its answer goes out when the listener has closed already."""
    held = Held()
    async with listening(held) as (listener, port), aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/"))
        await held.asked.wait()
        listener.part()
        asyncio.get_running_loop().call_later(0.7 * DRAIN_SECONDS, held.released.set)
        await listener.__aexit__()
        answer = await request
        text = await answer.text()

    assert (answer.status, answer.headers.get("Connection"), text) == (200, "close", "hello")


@pytest.mark.parametrize("drain_seconds", [DRAIN_SECONDS, 0.0])
async def test_a_request_that_never_ends_is_not_waited_for_any_longer(drain_seconds: float) -> None:
    """The kubelet counts the time of a stop, so it must be what the configuration says."""
    held = Held()
    async with listening(held, drain_seconds) as (listener, port), aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.post(f"http://127.0.0.1:{port}/"))
        await held.asked.wait()
        started = time.monotonic()
        async with asyncio.timeout(10):
            await listener.__aexit__()
        took = time.monotonic() - started
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await request

    assert drain_seconds * 0.9 < took + 0.1
    assert took < drain_seconds + SLACK
