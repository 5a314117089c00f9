"""Follow all objects of one kind: list them, watch, and list again when the watch breaks."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import orjson
import structlog

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, OversizedAnswerError, unavailable
from broker.kube.session import Gone, KubeSession
from broker.model.schedule import backoff

log = structlog.get_logger(__name__)

PAGE = 500
"""How many objects are asked for at a time; fewer, where so many are too much."""

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""Sixteen times what a page of usual TokenClients takes. Decoded it takes several times as much memory."""

STALE_SECONDS = 90.0
"""What was not heard of for so long may have changed since: nobody is served by it."""

SILENT_PART = 7 / 9
"""A watch that is silent for this part of it, 70 s, may be half open: all is listed again, before anything is stale.

The API server sends a bookmark each minute, but none where the kind has not changed since the list was made, unless
its etcd reports progress (``--watch-progress-notify-interval``).
"""

WATCH_SECONDS = (300, 600)
"""Watches end by themselves after a time from this range, so that they do not all end together."""

LONGEST_PAUSE_SECONDS = 15.0
"""Between two attempts."""

HELD_SECONDS = 15.0
"""A watch that lasted longer was a success, whatever broke it then."""

Resource = dict[str, Any]

Essence = TypeVar("Essence")


class Follower(Protocol[Essence]):
    """Whoever wants to know."""

    def heard(self) -> None:
        """Take note that what is known is what the API server says now."""

    def listed(self, essences: list[Essence]) -> None:
        """Take note of all that there is."""

    def put(self, essence: Essence) -> None:
        """Take note of one that came or changed."""

    def gone(self, essence: Essence) -> None:
        """Take note of one that went."""


class WatchMetrics(Protocol):
    """What is told about watches."""

    def watch_restarted(self, reason: str) -> None:
        """Count a watch that ended before its time."""


class Silent(Exception):  # noqa: N818 - what it is: no failure, where nothing has happened
    """A watch said nothing for long."""


class Reflector(Generic[Essence]):
    """Tells a follower of each object. ``kind`` is what messages call them, ``path`` where all of them are.

    ``essence`` returns what a follower needs of an object: of a list, no more is kept until its end. It raises
    KeyError, TypeError or AttributeError where that is not there.
    """

    def __init__(
        self,
        session: KubeSession,
        kind: str,
        path: str,
        follower: Follower[Essence],
        metrics: WatchMetrics,
        *,
        essence: Callable[[Resource], Essence],
    ) -> None:
        self._session = session
        self._kind = kind
        self._path = path
        self._follower = follower
        self._metrics = metrics
        self._essence = essence
        self._version = ""
        self._limit = PAGE
        self._watching_since: float | None = None
        self.trouble = ""
        """Why nothing is heard; empty where something is, or nothing was tried yet."""

    async def run(self) -> None:
        """List, watch, and list again when the watch breaks, until cancelled."""
        failures = 0
        while True:
            self._watching_since = None
            try:
                await self._list()
                while True:
                    self._watching_since = asyncio.get_running_loop().time()
                    await self._watch()
                    failures = 0
            except Gone:
                failures = self._failures(failures)
                self._broken("gone", "the resource version is too old")
                await self._pause(failures - 1)
            except Silent:
                self._broken("silent", "nothing was heard for long, so all is listed again")
            except BrokerError as error:
                failures = self._failures(failures)
                self._broken(str(error.reason), error.operator_detail)
                await self._pause(failures)

    def _failures(self, before: int) -> int:
        """Return how many there were in a row with this one."""
        since, now = self._watching_since, asyncio.get_running_loop().time()
        return 1 if since is not None and now - since > HELD_SECONDS else before + 1

    async def _pause(self, failures: int) -> None:
        """Wait after so many failures in a row; a list that could be read is no success if its watch breaks at once."""
        if failures:
            await asyncio.sleep(backoff(failures, random.random(), longest=LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter

    def _broken(self, reason: str, detail: str) -> None:
        self._metrics.watch_restarted(reason)
        self.trouble = detail
        log.warning("registry.watch_broken", kind=self._kind, reason=reason, detail=detail)

    async def _list(self) -> None:
        essences = [item async for item in self._pages()]
        self._limit = PAGE
        self.trouble = ""
        self._follower.heard()
        self._follower.listed(essences)

    async def _pages(self) -> AsyncIterator[Essence]:
        following = ""
        while True:
            answer = await self._ask(following)
            if answer.status == 410:  # noqa: PLR2004 - the continue token is too old
                raise Gone
            if not answer.ok:
                raise unavailable(f"listing {self._kind} answered {answer.message()}", answer.retry_after)
            items, self._version, token = self._page(answer.json())
            for item in items:
                yield item
            if not token:
                return
            following = f"&continue={quote(token, safe='')}"

    async def _ask(self, following: str) -> Answer:
        """Ask for a page, and for half of it where it is too large, down to one object.

        A page that does not come in time is asked for by halves, too, when the list is begun anew.
        """
        while True:
            largest = MAX_PAGE_BYTES if self._limit > 1 else None
            try:
                return await self._session.call("GET", f"{self._path}?limit={self._limit}{following}", largest=largest)
            except OversizedAnswerError:
                if self._limit == 1:
                    raise
                self._halve()
            except BrokerError as error:
                if error.reason is Reason.KUBERNETES_TIMEOUT:
                    self._halve()
                raise

    def _halve(self) -> None:
        self._limit = max(1, self._limit // 2)
        log.info("registry.pages_halved", kind=self._kind, limit=self._limit)

    def _page(self, document: Any) -> tuple[list[Essence], str, str]:
        """Return a page's items, its resource version, and the token for the next one, empty where it is the last."""
        try:
            metadata = document["metadata"]
            items = [self._essence(item) for item in document["items"]]
            return items, str(metadata["resourceVersion"]), str(metadata.get("continue") or "")
        except (KeyError, TypeError, AttributeError):
            raise unavailable(f"the list of {self._kind} cannot be read") from None

    async def _watch(self) -> None:
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - spread, not a secret
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={self._version}"
        async with self._session.stream(f"{self._path}?{query}") as lines:
            while True:
                try:
                    async with asyncio.timeout(STALE_SECONDS * SILENT_PART):
                        line = await anext(lines)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise Silent from None
                self._event(line)

    def _event(self, line: bytes) -> None:
        tell = None
        try:
            event = orjson.loads(line)
            kind, resource = event["type"], event["object"]
            if kind == "ERROR":
                raise Gone if resource.get("code") == 410 else unavailable(str(resource.get("message")))  # noqa: PLR2004
            if kind in {"ADDED", "MODIFIED", "DELETED"}:
                tell = partial(
                    self._follower.gone if kind == "DELETED" else self._follower.put, self._essence(resource)
                )
            self._version = resource["metadata"]["resourceVersion"]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise unavailable("an event of the watch cannot be read") from None
        self._follower.heard()
        if tell is not None:
            tell()
