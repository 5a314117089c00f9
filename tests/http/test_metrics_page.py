"""Pages of metrics, which are large: whoever reaches the second port cannot fill the broker's memory with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import ClientSession
from prometheus_client import CollectorRegistry, Gauge

from broker.http import ops
from broker.http.listeners import Listener
from broker.http.ops import MAX_PAGES, OpsEndpoint, ops_router
from tests.support.malformed import MALFORMED
from tests.support.processes import free_port

ASK = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
PAGE_BYTES = 16_000_000
"""More than what the kernel takes for a reader that does not read."""


class Large(CollectorRegistry):
    """Metrics that fill a page."""

    def __init__(self) -> None:
        super().__init__()
        gauge = Gauge("large", "Fills a page.", ["text"], registry=self)
        for number in range(16):
            gauge.labels(f"{number}{'x' * (PAGE_BYTES // 16)}").set(1)


@asynccontextmanager
async def _ops(port: int) -> AsyncIterator[str]:
    app = ops_router(OpsEndpoint(Large(), lambda: None))
    async with Listener("ops", app, "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=0.1):
        yield f"http://127.0.0.1:{port}"


async def _status(session: ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        await answer.read()
        return answer.status


async def test_no_more_pages_than_the_memory_bears_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who do not read theirs are the last for a while, are sent away, and harm nothing else."""
    monkeypatch.setattr(ops, "PAGE_SECONDS", 3.0)
    port = free_port()
    async with _ops(port) as url, ClientSession() as session:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_PAGES)]
        for _, writer in silent:
            writer.write(ASK)
        for reader, _ in silent:
            await reader.readexactly(1)  # it has come to be answered

        refused = await _status(session, f"{url}/metrics")
        alive = await _status(session, f"{url}/livez")
        rest = await asyncio.gather(*(_rest(reader, after=4.0) for reader, _ in silent))
        after = await _status(session, f"{url}/metrics")
        for _, writer in silent:
            writer.close()

    assert (refused, alive, after) == (503, 200, 200)
    assert all(number < PAGE_BYTES for number in rest), "nobody was sent away"


async def _rest(reader: asyncio.StreamReader, after: float) -> int:
    """Return how many bytes come yet to one that begins to read late."""
    await asyncio.sleep(after)
    number = 0
    with suppress(ConnectionError):
        while part := await reader.read(1 << 20):
            number += len(part)
    return number


async def test_a_page_that_is_read_comes_whole() -> None:
    """Prometheus gets all of it, again and again on one connection, and HEAD none of it."""
    async with _ops(free_port()) as url, ClientSession() as session:
        for _ in range(MAX_PAGES + 1):
            async with session.get(f"{url}/metrics") as answer:
                assert len(await answer.read()) > PAGE_BYTES
        async with session.head(f"{url}/metrics") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["Content-Type"].startswith("text/plain")
