"""The registered clients: a memory fed by a watch on TokenClients, and nothing else."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol
from urllib.parse import quote

import orjson
import structlog

from broker.errors import BrokerError, Reason
from broker.kube.answer import unavailable
from broker.kube.session import Gone, KubeSession
from broker.model.client import ClientId
from broker.model.schedule import backoff
from broker.ports import Registration
from broker.registration.manifest import read_registration

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


class RegistryMetrics(Protocol):
    """What the registry tells about itself."""

    def registry_size(self, valid: int, invalid: int) -> None:
        """Count registrations by whether they are valid."""

    def watch_restarted(self, reason: str) -> None:
        """Count a watch that ended before its time."""


def _nobody_listens(_client_id: ClientId) -> None:
    """Serve where nothing has to follow the registry."""


class WatchedRegistry:
    """All TokenClients of the cluster; implements :class:`broker.ports.Registry`.

    ``on_change`` is set before :meth:`run` and called with the id of each registration that came, changed or
    went; it must not block.
    """

    def __init__(self, session: KubeSession, metrics: RegistryMetrics) -> None:
        self._session = session
        self.on_change: Callable[[ClientId], None] = _nobody_listens
        self._metrics = metrics
        self._known: dict[ClientId, Registration] = {}
        self._invalid: set[ClientId] = set()
        self._version = ""
        self._heard: float | None = None
        self.synced = asyncio.Event()

    @property
    def fresh(self) -> bool:
        """Tell whether the memory is young enough to decide from."""
        return self._heard is not None and asyncio.get_running_loop().time() - self._heard < STALE_SECONDS

    def get(self, client_id: ClientId) -> Registration | None:
        """Return a registration, or None. Raises BrokerError(registry_stale) when the memory is too old."""
        if not self.fresh:
            raise BrokerError(
                Reason.REGISTRY_STALE,
                "The broker has lost sight of its registered clients; try again shortly.",
                operator_detail=f"No word from the watch on TokenClients for {STALE_SECONDS:g} s.",
                retry_after=5,
            )
        return self._known.get(client_id)

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
        listed = [read_registration(item) async for item in self._pages()]
        new = {registration.id: registration for registration in listed}
        changed = [key for key in new.keys() | self._known.keys() if new.get(key) != self._known.get(key)]
        self._known = new
        self._invalid = {key for key, registration in new.items() if registration.client is None}
        self._heard_now()
        self.synced.set()
        for key in changed:
            self.on_change(key)
        self._count()

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
        self._heard_now()
        if kind == "DELETED":
            self._drop(ClientId(resource["metadata"]["namespace"], resource["metadata"]["name"]))
        elif kind in {"ADDED", "MODIFIED"}:
            self._put(read_registration(resource))

    def _put(self, registration: Registration) -> None:
        self._known[registration.id] = registration
        self._invalid.discard(registration.id)
        if registration.client is None:
            self._invalid.add(registration.id)
        self.on_change(registration.id)
        self._count()

    def _drop(self, client_id: ClientId) -> None:
        self._known.pop(client_id, None)
        self._invalid.discard(client_id)
        self.on_change(client_id)
        self._count()

    def _count(self) -> None:
        self._metrics.registry_size(len(self._known) - len(self._invalid), len(self._invalid))

    def _heard_now(self) -> None:
        self._heard = asyncio.get_running_loop().time()
