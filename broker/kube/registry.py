"""The registered clients: a memory fed by a watch on TokenClients, and nothing else."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, Protocol
from urllib.parse import quote

import orjson
import structlog

from broker.errors import BrokerError
from broker.kube.answer import unavailable
from broker.kube.session import Gone, KubeSession
from broker.model.client import ClientId
from broker.model.schedule import backoff
from broker.registration.manifest import read_registration
from broker.registration.memory import Memory, SizeMetrics

log = structlog.get_logger(__name__)

PATH = "/apis/tokenbroker.dev/v1alpha1/tokenclients"
PAGE = 500
STALE_SECONDS = 90.0
"""The API server sends a bookmark each minute: a watch that is silent for longer may be half open."""

WATCH_SECONDS = (300, 600)
"""Watches end by themselves after a time from this range, so that they do not all end together."""


def _page(document: Any) -> tuple[list[dict[str, Any]], str, str]:
    """Return the items of a page, its resource version, and the token for the next one, empty where it is the last."""
    try:
        metadata = document["metadata"]
        return list(document["items"]), str(metadata["resourceVersion"]), str(metadata.get("continue") or "")
    except (KeyError, TypeError, AttributeError):
        raise unavailable("the list of TokenClients cannot be read") from None


class RegistryMetrics(SizeMetrics, Protocol):
    """What the registry tells about itself."""

    def watch_restarted(self, reason: str) -> None:
        """Count a watch that ended before its time."""


class WatchedRegistry(Memory):
    """All TokenClients of the cluster; implements :class:`broker.ports.LiveRegistry`."""

    def __init__(self, session: KubeSession, metrics: RegistryMetrics) -> None:
        super().__init__(metrics, source="the watch on TokenClients", stale_seconds=STALE_SECONDS)
        self._session = session
        self._metrics = metrics
        self._version = ""

    async def run(self) -> None:
        """List, watch, and list again when the watch breaks, until cancelled."""
        failures = 0
        while True:
            try:
                await self._list()
                failures = 0
                while True:
                    await self._watch()
            except Gone:
                self._broken("gone", "the resource version is too old")
            except BrokerError as error:
                failures += 1
                self._broken(str(error.reason), error.operator_detail)
                await asyncio.sleep(backoff(failures, random.random(), longest=15))  # noqa: S311 - jitter

    def _broken(self, reason: str, detail: str) -> None:
        self._metrics.watch_restarted(reason)
        log.warning("registry.watch_broken", reason=reason, detail=detail)

    async def _list(self) -> None:
        self.replace_all([read_registration(item) async for item in self._pages()])
        self.synced.set()

    async def _pages(self) -> AsyncIterator[dict[str, Any]]:
        following = ""
        while True:
            answer = await self._session.call("GET", f"{PATH}?limit={PAGE}{following}")
            if answer.status == 410:  # noqa: PLR2004 - the continue token is too old
                raise Gone
            if not answer.ok:
                raise unavailable(f"listing TokenClients answered {answer.message()}", answer.retry_after)
            items, self._version, token = _page(answer.json())
            for item in items:
                yield item
            if not token:
                return
            following = f"&continue={quote(token, safe='')}"

    async def _watch(self) -> None:
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - spread, not a secret
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={self._version}"
        async with self._session.stream(f"{PATH}?{query}") as lines:
            while True:
                try:
                    async with asyncio.timeout(STALE_SECONDS):
                        line = await anext(lines)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise unavailable("the watch on TokenClients fell silent") from None
                self._event(line)

    def _event(self, line: bytes) -> None:
        try:
            event = orjson.loads(line)
            kind, resource = event["type"], event["object"]
            if kind == "ERROR":
                raise Gone if resource.get("code") == 410 else unavailable(str(resource.get("message")))  # noqa: PLR2004
            self._version = resource["metadata"]["resourceVersion"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise unavailable("an event of the watch cannot be read") from None
        self.heard()
        if kind == "DELETED":
            self.drop(ClientId(resource["metadata"]["namespace"], resource["metadata"]["name"]))
        elif kind in {"ADDED", "MODIFIED"}:
            self.put(read_registration(resource))
