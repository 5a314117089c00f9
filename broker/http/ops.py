"""The second port: metrics and health, for Prometheus and the kubelet."""

import asyncio
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder


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

    def leave(self) -> None:
        """Be ready no more, whatever else is so: this process is about to end."""
        self._leaving = True

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer in the exposition format that the scraper asks for.

        With ten thousand clients a page has megabytes: what is shown is taken metric by metric, with time for requests
        in between, and written by another thread.
        """
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        taken = []
        for metric in self._registry.collect():
            taken.append(metric)
            await asyncio.sleep(0)
        body = await asyncio.to_thread(encode, _Taken(taken))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer as long as the event loop turns: not ready does not mean dead."""
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        """Answer 200 when requests can be served, 503 with the reason when not."""
        reason = "stopping" if self._leaving else self._not_ready()
        return web.Response(text="ok\n") if reason is None else web.Response(text=f"{reason}\n", status=503)


def ops_app(endpoint: OpsEndpoint) -> web.Application:
    """Return the second listener's application."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", endpoint.metrics),
            web.get("/livez", endpoint.livez),
            web.get("/readyz", endpoint.readyz),
        ]
    )
    return app
