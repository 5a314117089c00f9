"""Objects are listed page by page and watched, and listed again when the watch breaks; nothing half known is told."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.kube import reflector as watching
from broker.kube.reflector import PAGE, SILENT_PART, STALE_SECONDS, WATCH_SECONDS, Reflector, Resource
from tests.support.asked import answered, document, line, status
from tests.support.scripted import Reply, ScriptedServer, answer, resets, says, says_and_closes

PATH = "/apis/example.dev/v1/things"


@dataclass(slots=True)
class Told:
    """Implements Follower and WatchMetrics: keeps what it is told, in order."""

    said: list[tuple[str, Any]] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)

    def heard(self) -> None:
        """Keep it."""
        self.said.append(("heard", None))

    def listed(self, resources: list[Resource]) -> None:
        """Keep their names."""
        self.said.append(("listed", [one["metadata"]["name"] for one in resources]))

    def put(self, resource: Resource) -> None:
        """Keep its name."""
        self.said.append(("put", resource["metadata"]["name"]))

    def gone(self, resource: Resource) -> None:
        """Keep its name."""
        self.said.append(("gone", resource["metadata"]["name"]))

    def watch_restarted(self, reason: str) -> None:
        """Keep why."""
        self.restarts.append(reason)

    def backoff(self, attempt: int, _jitter: float, *, longest: float) -> float:
        """Note which attempt failed, and wait for nothing."""
        assert longest == 15
        self.waited.append(attempt)
        return 0.0

    def news(self) -> list[tuple[str, Any]]:
        """Return what came, without that something was heard."""
        return [one for one in self.said if one[0] != "heard"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Return who is told, also of waits."""
    told = Told()
    monkeypatch.setattr(watching, "backoff", told.backoff)
    return told


def thing(name: str, version: str = "1") -> Resource:
    """Return an object."""
    return {"metadata": {"name": name, "resourceVersion": version}}


def page(*names: str, version: str = "10", following: str = "") -> Reply:
    """Answer with a page of a list."""
    metadata = {"resourceVersion": version, "continue": following}
    return document({"metadata": metadata, "items": [thing(name) for name in names]})


def watch(*events: tuple[str, Resource]) -> Reply:
    """Open a watch, say what happened, and leave it open."""
    lines = b"".join(orjson.dumps({"type": kind, "object": it}) + b"\n" for kind, it in events)
    chunk = b"%x\r\n" % len(lines) + lines + b"\r\n" if lines else b""
    return says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)


def ended(*events: tuple[str, Resource]) -> Reply:
    """Say what happened, and end the watch as the API server does after its time."""
    lines = b"".join(orjson.dumps({"type": kind, "object": it}) + b"\n" for kind, it in events)
    return says_and_closes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + lines)


@asynccontextmanager
async def following(folder: Path, told: Told, *replies: Reply) -> AsyncIterator[ScriptedServer]:
    """Run a reflector until all these replies were asked for, and one thing more."""
    async with answered(folder, *replies) as (session, server):
        running = asyncio.create_task(Reflector(session, "Things", PATH, told, told, essence=lambda thing: thing).run())
        try:
            await server.asked(len(replies) + 1)
            yield server
        finally:
            running.cancel()
            await asyncio.wait([running])


def asked(server: ScriptedServer) -> list[str]:
    """Return what was asked for: a list with its ``continue``, or a watch with its version."""
    lines = [line(request) for request in server.requests]
    return [re.sub(r".*?(&continue=.*|resourceVersion=.*|limit=\d+)$", r"\1", one) for one in lines]


async def test_all_pages_are_one_list(tmp_path: Path, told: Told) -> None:
    """Followers hear of it when the last page is there; the watch goes on from the version of that one."""
    pages = page("a", "b", following="t/1"), page("c", following="t+2"), page("d", version="12")
    async with following(tmp_path, told, *pages) as server:
        requests = asked(server)

    assert requests == [f"limit={PAGE}", "&continue=t%2F1", "&continue=t%2B2", "resourceVersion=12"]
    assert told.said == [("heard", None), ("listed", ["a", "b", "c", "d"])]


async def test_a_continue_token_that_is_too_old_starts_the_list_anew(tmp_path: Path, told: Told) -> None:
    """Pages of two different moments are never put together; at once, since nothing is wrong."""
    replies = page("a", following="t1"), status(410, "too old"), page("b", version="20")
    async with following(tmp_path, told, *replies) as server:
        requests = asked(server)

    assert requests == [f"limit={PAGE}", "&continue=t1", f"limit={PAGE}", "resourceVersion=20"]
    assert told.news() == [("listed", ["b"])]
    assert (told.restarts, told.waited) == (["gone"], [])


@pytest.mark.parametrize("broken", [status(500), status(403), says(answer(200, b"[]"))], ids=["500", "403", "no list"])
async def test_half_a_list_is_none(tmp_path: Path, told: Told, broken: Reply) -> None:
    """What went in between would else be taken for gone."""
    async with following(tmp_path, told, page("a", following="t1"), broken, page("a", "b")) as server:
        requests = asked(server)

    assert requests[1:3] == ["&continue=t1", f"limit={PAGE}"]
    assert told.news() == [("listed", ["a", "b"])]
    assert (told.restarts, told.waited) == (["kubernetes_unavailable"], [1])


@pytest.mark.parametrize(
    "too_old", [status(410), watch(("ERROR", {"code": 410, "message": "too old"}))], ids=["status", "event"]
)
async def test_a_version_that_is_too_old_to_watch_from_needs_a_new_list(
    tmp_path: Path, told: Told, too_old: Reply
) -> None:
    """Said before the watch begins or in it; no failure, and not waited for."""
    async with following(tmp_path, told, page("a"), too_old, page("b", version="20")) as server:
        requests = asked(server)

    assert requests == [f"limit={PAGE}", "resourceVersion=10", f"limit={PAGE}", "resourceVersion=20"]
    assert told.news() == [("listed", ["a"]), ("listed", ["b"])]
    assert (told.restarts, told.waited) == (["gone"], [])


async def test_each_event_moves_the_version(tmp_path: Path, told: Told) -> None:
    """A bookmark, too, which tells of no object; the next watch starts at the last of them, without a list."""
    events = [("ADDED", thing("b", "11")), ("MODIFIED", thing("a", "12")), ("DELETED", thing("a", "13"))]
    bookmark = ("BOOKMARK", thing("", "42"))
    replies = page("a"), ended(*events), ended(bookmark), ended(("UNHEARD_OF", thing("c", "43")))
    async with following(tmp_path, told, *replies) as server:
        requests = asked(server)

    assert requests[1:] == [f"resourceVersion={version}" for version in (10, 13, 42, 43)]
    assert told.news() == [("listed", ["a"]), ("put", "b"), ("put", "a"), ("gone", "a")]
    assert told.said.count(("heard", None)) == 6
    assert told.restarts == []


async def test_a_watch_asks_for_bookmarks_and_ends_by_itself(tmp_path: Path, told: Told) -> None:
    """After a time that differs, so that not all end together."""
    async with following(tmp_path, told, page(), ended(), ended()) as server:
        lines = [line(request) for request in server.requests[1:]]

    times = [int(found[1]) for one in lines if (found := re.search(r"&timeoutSeconds=(\d+)&", one))]
    assert all(one.startswith(f"GET {PATH}?watch=1&allowWatchBookmarks=true&") for one in lines)
    assert len(times) == 3
    assert all(WATCH_SECONDS[0] <= seconds <= WATCH_SECONDS[1] for seconds in times)
    assert STALE_SECONDS * SILENT_PART > 62  # the API server sends a bookmark each minute, and a little more
    assert STALE_SECONDS * (1 - SILENT_PART) > 15  # for the list


async def test_a_watch_that_is_silent_is_broken_off(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be half open: all is listed again at once, before what is known is too old."""
    monkeypatch.setattr(watching, "STALE_SECONDS", 0.05)
    async with following(tmp_path, told, page("a"), watch(("ADDED", thing("b", "11"))), page("a", "b")) as server:
        requests = asked(server)

    assert requests[2] == f"limit={PAGE}"
    assert told.said[-2:] == [("heard", None), ("listed", ["a", "b"])]
    assert (told.restarts, told.waited) == (["silent"], [])


async def test_failures_in_a_row_are_waited_for_longer_and_longer(tmp_path: Path, told: Told) -> None:
    """A list that could be read changes nothing of that where its watch breaks at once."""
    replies = (*(status(500) for _ in range(3)), page(), watch(("ERROR", {"code": 500, "message": "oops"})))
    async with following(tmp_path, told, *replies):
        pass

    assert told.waited == [1, 2, 3, 4]
    assert told.restarts == ["kubernetes_unavailable"] * 4


async def test_a_watch_that_ended_in_its_time_ends_a_row_of_failures(tmp_path: Path, told: Told) -> None:
    """Whatever failed before it is over."""
    async with following(tmp_path, told, status(500), page(), ended(), status(500)):
        pass

    assert told.waited == [1, 1]


async def test_a_watch_that_held_for_a_while_ends_a_row_of_failures(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something on the way that cuts each watch after some minutes does not make the broker wait longer and longer."""
    monkeypatch.setattr(watching, "HELD_SECONDS", 0.05)

    async def held(writer: asyncio.StreamWriter) -> None:
        await watch()(writer)
        await asyncio.sleep(0.1)
        await resets()(writer)

    async with following(tmp_path, told, page(), held, page(), held, page(), held):
        pass

    assert told.waited == [1, 1, 1]


async def test_trouble_is_over_with_the_next_list(tmp_path: Path, told: Told) -> None:
    """Who is not ready later says nothing of a failure that has long passed."""
    async with answered(tmp_path, status(500, "oops"), page()) as (session, server):
        reflector = Reflector(session, "Things", PATH, told, told, essence=lambda thing: thing)
        running = asyncio.create_task(reflector.run())
        await server.asked(2)
        during = reflector.trouble
        await server.asked(3)
        after = reflector.trouble
        running.cancel()
        await asyncio.wait([running])

    assert "oops" in during
    assert after == ""


@pytest.mark.parametrize("code", [403, 500, 429])
async def test_a_watch_that_is_refused_is_followed_by_a_list(tmp_path: Path, told: Told, code: int) -> None:
    """Nothing is known of what happens meanwhile."""
    async with following(tmp_path, told, page("a"), status(code), page("b")) as server:
        requests = asked(server)

    assert requests[2] == f"limit={PAGE}"
    assert told.news() == [("listed", ["a"]), ("listed", ["b"])]
