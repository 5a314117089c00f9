"""The second port: metrics and health, for Prometheus and the kubelet."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from broker.http.router import ANY, Router

MAX_PAGES = 4
"""How many pages of metrics are made or sent at a time. With ten thousand clients each takes some 10 MB meanwhile, and
whoever reaches the port could have the broker run out of memory."""

PAGE_SECONDS = 10.0
"""How long whoever asked for a page may take to read it; as long as Prometheus waits for one by default."""


class _Taken(CollectorRegistry):
    """What was shown a moment ago."""

    def __init__(self, metrics: list[Metric]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class OpsEndpoint:
    """Answers /metrics, /livez and /readyz. ``not_ready`` returns why the broker is not ready, or None."""

    def __init__(self, registry: CollectorRegistry, not_ready: Callable[[], str | None]) -> None:
        self._registry = registry
        self._not_ready = not_ready
        self._leaving = False
        self._pages = 0

    def leave(self) -> None:
        """Be ready no more, whatever else is so: this process is about to end."""
        self._leaving = True

    async def metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer in the exposition format that the scraper asks for; with 503 while too many others are."""
        if self._pages >= MAX_PAGES:
            return web.Response(text="too many pages at a time\n", status=503, headers={"Retry-After": "1"})
        self._pages += 1
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
            return await _sent(request, await self._page(encode), content_type)
        finally:
            self._pages -= 1

    async def _page(self, encode: Callable[[CollectorRegistry], bytes]) -> bytes:
        """Return a page.

        With ten thousand clients it has megabytes: what is shown is taken metric by metric, with time for requests in
        between, and written by another thread.
        """
        taken = []
        for metric in self._registry.collect():
            taken.append(metric)
            await asyncio.sleep(0)
        return await asyncio.to_thread(encode, _Taken(taken))

    async def livez(self, _request: web.BaseRequest) -> web.Response:
        """Answer as long as the event loop turns: not ready does not mean dead."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.BaseRequest) -> web.Response:
        """Answer 200 when requests can be served, 503 with the reason when not."""
        reason = "stopping" if self._leaving else self._not_ready()
        return web.Response(text="ok\n") if reason is None else web.Response(text=f"{reason}\n", status=503)


async def _sent(request: web.BaseRequest, body: bytes, content_type: str) -> web.StreamResponse:
    """Send a page, and end the connection of who does not read it."""
    if request.method == "HEAD":
        return web.Response(headers={"Content-Type": content_type})
    response = web.StreamResponse(headers={"Content-Type": content_type})
    response.content_length = len(body)
    with suppress(ConnectionError):  # whoever asked went
        await response.prepare(request)
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                await response.write(body)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
    return response


def ops_router(endpoint: OpsEndpoint) -> Router:
    """Return what answers on the second listener."""
    router = Router(_unknown)
    pages = {"/metrics": endpoint.metrics, "/livez": endpoint.livez, "/readyz": endpoint.readyz}
    for path, answer in pages.items():
        for method in ("GET", "HEAD"):
            router.add(method, path, answer)
        router.add(ANY, path, _not_allowed)
    return router


async def _unknown(_request: web.BaseRequest) -> web.Response:
    return web.Response(status=HTTPStatus.NOT_FOUND, text="not found\n")


async def _not_allowed(_request: web.BaseRequest) -> web.Response:
    return web.Response(
        status=HTTPStatus.METHOD_NOT_ALLOWED, text="method not allowed\n", headers={"Allow": "GET, HEAD"}
    )
