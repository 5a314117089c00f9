"""Who answers a request: by its path as it was sent, and its method."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from broker.http.listeners import Listener
from broker.http.router import ANY, Router, last_segment
from tests.support.malformed import MALFORMED
from tests.support.processes import free_port


def _saying(word: str) -> web.Response:
    return web.Response(text=word)


def router() -> Router:
    """Return one with a route of each kind."""

    async def unknown(_request: web.BaseRequest) -> web.Response:
        return _saying("unknown")

    async def made(request: web.BaseRequest) -> web.Response:
        return _saying(f"made {await request.text()}")

    async def refused(request: web.BaseRequest) -> web.Response:
        return _saying(f"refused {request.method}")

    async def ended(request: web.BaseRequest) -> web.Response:
        return _saying(f"ended {last_segment(request)}")

    routes = Router(unknown)
    routes.add("POST", "/v1/tokens", made)
    routes.add(ANY, "/v1/tokens", refused)
    routes.add("DELETE", "/v1/tokens/{last}", ended)
    return routes


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/v1/tokens", "made body"),
        ("POST", "/v1/tokens?a=b", "made body"),
        ("GET", "/v1/tokens", "refused GET"),
        ("DELETE", "/v1/tokens", "refused DELETE"),
        ("DELETE", "/v1/tokens/abc", "ended abc"),
        ("DELETE", "/v1/tokens/a%2Fb", "ended a/b"),
        ("POST", "/v1/tokens/abc", "unknown"),
        ("DELETE", "/v1/tokens/", "unknown"),
        ("DELETE", "/v1/tokens/a/b", "unknown"),
        ("POST", "/v1//tokens", "unknown"),
        ("POST", "/v1%2Ftokens", "unknown"),
        ("POST", "/", "unknown"),
    ],
)
async def test_a_request_is_answered_by_path_and_method(method: str, path: str, said: str) -> None:
    """Nothing is guessed: another spelling of a path is another path."""
    port = free_port()
    async with (
        Listener("api", router(), "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=1),
        asyncio.timeout(10),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"
        writer.write(head.encode())
        answer = await reader.read()
        writer.close()

    assert answer.rpartition(b"\r\n\r\n")[2].decode() == said


async def test_a_body_that_waits_for_a_word_is_let_come() -> None:
    """``Expect: 100-continue`` (RFC 9110, 10.1.1)."""
    port = free_port()
    async with (
        Listener("api", router(), "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=1),
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/v1/tokens", data=b"later", expect100=True) as answer,
    ):
        assert await answer.text() == "made later"


async def test_an_expectation_of_http_1_0_is_ignored() -> None:
    """Whoever speaks that would take the interim answer for the whole one (RFC 9110, 10.1.1)."""
    port = free_port()
    async with Listener("api", router(), "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=1):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /v1/tokens HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody"
        writer.write(head)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
