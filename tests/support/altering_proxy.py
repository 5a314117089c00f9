"""A TLS proxy before a real server that passes everything on, and alters the answers it is told to."""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from broker.clock import SystemClock
from tests.support.certificates import Authority

Alter = Callable[[web.Request, web.Response], None]
_HOP_BY_HOP = ("Host", "Connection", "Transfer-Encoding", "Content-Length", "Content-Encoding")


def nothing(_request: web.Request, _response: web.Response) -> None:
    """Leave an answer as it is."""


def clock(seconds: float) -> Alter:
    """Have the server's clock differ by so much, as far as the Date of its answers tells."""

    def alter(_request: web.Request, response: web.Response) -> None:
        response.headers["Date"] = format_datetime(SystemClock().now() + timedelta(seconds=seconds), usegmt=True)

    return alter


def without_clock(_request: web.Request, response: web.Response) -> None:
    """Leave no Date that anybody could read."""
    response.headers["Date"] = "unknown"


def says(path: str, document: Any) -> Alter:
    """Have a path answered with another document."""

    def alter(request: web.Request, response: web.Response) -> None:
        if request.path == path:
            response.body = json.dumps(document).encode()

    return alter


@asynccontextmanager
async def altered(
    server: str, ca_file: Path, authority: Authority, alter: Alter = nothing, lifetime: timedelta = timedelta(days=30)
) -> AsyncIterator[str]:
    """Run one before ``server``, and yield its URL; its certificate lasts for ``lifetime``, or has ended."""
    files = authority.server("proxy", lifetime)
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(files.certificate, files.key)
    trusted = ssl.create_default_context(cafile=str(ca_file))

    async def handle(request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        url = URL(server + request.raw_path, encoded=True)
        body = await request.read()
        async with session.request(request.method, url, headers=headers, data=body, ssl=trusted) as answer:
            kept = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
            response = web.Response(status=answer.status, headers=kept, body=await answer.read())
        alter(request, response)
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=shown)
            await site.start()
            yield f"https://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
