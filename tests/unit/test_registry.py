"""The registry follows a list and a watch, and loses its way in neither."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.errors import BrokerError, Reason
from broker.kube import reflector as watching
from broker.kube.registry import WatchedRegistry
from broker.kube.session import KubeSession
from broker.model.client import ClientId
from broker.ports import Registration
from broker.registration.manifest import read_registration
from broker.registration.memory import Memory
from broker.wire import connection as wire
from tests.support.bad_specs import GOOD
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.support.scripted import Reply, ScriptedServer, answer, floods, hangs, says, says_and_closes, scripted

WEB = ClientId("shop", "web")
APP = ClientId("shop", "app")


@dataclass(slots=True)
class Told:
    """What the registry told about itself."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    changed: asyncio.Queue[ClientId] = field(default_factory=asyncio.Queue)

    def registry_size(self, valid: int, invalid: int) -> None:
        """Note the counts."""
        self.sizes.append((valid, invalid))

    def watch_restarted(self, reason: str) -> None:
        """Note why."""
        self.restarts.append(reason)


def _resource(name: str, version: str, *, spec: Any = None) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "uid": f"u-{name}", "generation": 1, "resourceVersion": version}
    return {"metadata": metadata, "spec": spec or GOOD}


def _list(*items: dict[str, Any], version: str = "10", following: str = "") -> Reply:
    return says(
        answer(
            200,
            orjson.dumps({"metadata": {"resourceVersion": version, "continue": following}, "items": list(items)}),
        )
    )


def _watch(*events: bytes) -> Reply:
    """Open a watch, say what happened, and leave it open."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n" % len(event) + event + b"\r\n")
            await writer.drain()

    return reply


def _event(kind: str, resource: dict[str, Any]) -> bytes:
    return orjson.dumps({"type": kind, "object": resource}) + b"\n"


@asynccontextmanager
async def _following(
    folder: Path, *replies: Reply, timeout_seconds: float = 5
) -> AsyncIterator[tuple[WatchedRegistry, Told, ScriptedServer]]:
    authority = Authority.create(folder, "test")
    (folder / "token").write_text("own.token")
    told = Told()
    async with (
        scripted(*replies) as server,
        KubeSession(server.url, authority.file, folder / "token", timeout_seconds) as session,
    ):
        registry = WatchedRegistry(session, told)
        registry.on_change = told.changed.put_nowait
        running = asyncio.create_task(registry.run())
        try:
            yield registry, told, server
        finally:
            running.cancel()
            await asyncio.wait([running])


async def _changed(told: Told) -> ClientId:
    return await asyncio.wait_for(told.changed.get(), 5)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "backoff", lambda *_args, **_more: 0.0)


async def test_pages_are_put_together(tmp_path: Path) -> None:
    """Every page is read; the token for the next one is sent back as it was, whatever is in it."""
    pages = (_list(_resource("web", "1"), following="a+b/&c="), _list(_resource("app", "2"), version="11"))
    async with _following(tmp_path, *pages, _watch()) as (registry, told, server):
        assert {await _changed(told), await _changed(told)} == {WEB, APP}
        known = (registry.get(WEB), registry.get(APP))
        await server.asked(3)

    assert all(registration is not None and registration.client is not None for registration in known)
    assert b"&continue=a%2Bb%2F%26c%3D HTTP/1.1" in server.requests[1]
    assert b"resourceVersion=11 HTTP/1.1" in server.requests[2]


async def test_events_are_followed(tmp_path: Path) -> None:
    """What comes, changes and goes is known at once, also when an event arrives in pieces."""
    bad = _resource("app", "12", spec={"grants": []})
    added, spoilt = _event("ADDED", _resource("app", "11")), _event("MODIFIED", bad)
    gone = _event("DELETED", _resource("web", "13"))
    watch = _watch(added[:7], added[7:] + spoilt[:20], spoilt[20:], gone)
    async with _following(tmp_path, _list(_resource("web", "1")), watch) as (registry, told, _):
        seen = [await _changed(told) for _ in range(4)]
        app, web = registry.get(APP), registry.get(WEB)

    assert seen == [WEB, APP, APP, WEB]
    assert web is None
    assert app is not None
    assert app.client is None
    assert app.fault is not None
    assert told.sizes == [(1, 0), (2, 0), (1, 1), (0, 1)]


@pytest.mark.parametrize(
    "page",
    [
        says(answer(200, b"<html>")),
        says(answer(200, b"{}")),
        says(answer(200, b"[]")),
        says(answer(200, b'{"metadata": {"resourceVersion": "1"}, "items": null}')),
        says(answer(500, b"{}")),
        says(answer(429, b"{}")),
        says_and_closes(b"HTTP/1.1 200 OK\r\n"),
    ],
    ids=["HTML", "nothing", "an array", "no items", "500", "429", "half"],
)
async def test_list_that_cannot_be_read_is_asked_for_again(tmp_path: Path, page: Reply) -> None:
    """A proxy's page or an overloaded server ends neither the registry nor the broker."""
    async with _following(tmp_path, page, _list(_resource("web", "1")), _watch()) as (_, told, _):
        assert await _changed(told) == WEB

    assert told.restarts == ["kubernetes_unavailable"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (_event("ERROR", {"code": 410, "message": "too old"}), "gone"),
        (_event("ERROR", {"code": 500, "message": "oops"}), "kubernetes_unavailable"),
        (b"not json\n", "kubernetes_unavailable"),
        (b'{"type": "ADDED"}\n', "kubernetes_unavailable"),
        (b'{"type": "ERROR", "object": "oops"}\n', "kubernetes_unavailable"),
        (b'{"type": "ADDED", "object": "oops"}\n', "kubernetes_unavailable"),
        (b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "9"}}}\n', "kubernetes_unavailable"),
        (b'{"type": "DELETED", "object": {"metadata": {"resourceVersion": "9"}}}\n', "kubernetes_unavailable"),
    ],
    ids=["410", "500", "nonsense", "half an event", "no status", "no object", "no name", "no name that went"],
)
async def test_watch_that_breaks_is_followed_by_a_new_list(tmp_path: Path, event: bytes, reason: str) -> None:
    """What was missed in between is found by comparing, and what went is noticed as gone."""
    first, second = _list(_resource("web", "1")), _list(_resource("app", "2"))
    async with _following(tmp_path, first, _watch(event), second, _watch()) as (registry, told, _):
        seen = [await _changed(told) for _ in range(3)]
        web = registry.get(WEB)

    assert seen[0] == WEB
    assert set(seen[1:]) == {WEB, APP}
    assert web is None
    assert told.restarts == [reason]


async def test_watch_that_ends_by_itself_goes_on_where_it_was(tmp_path: Path) -> None:
    """A watch has an end of its own: the next one starts at the last version, without a new list."""
    ended = says_and_closes(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + _event("BOOKMARK", _resource("", "42")),
    )
    async with _following(tmp_path, _list(version="7"), ended, _watch()) as (_, told, server):
        await server.asked(3)

    assert b"resourceVersion=7 " in server.requests[1]
    assert b"resourceVersion=42 " in server.requests[2]
    assert told.restarts == []


async def test_silent_watch_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half open for too long: nobody is served from what may be out of date, and the list is asked for again."""
    monkeypatch.setattr(watching, "STALE_SECONDS", 0.05)
    async with _following(tmp_path, _list(_resource("web", "1")), _watch()) as (registry, told, server):
        await _changed(told)
        await server.asked(3)

        async def stale() -> bool:
            return not registry.fresh

        await until(stale, what="what is known is too old")
        with pytest.raises(BrokerError) as refused:
            registry.get(WEB)

    assert refused.value.reason is Reason.REGISTRY_STALE
    assert told.restarts == ["silent"]


def _asked(server: ScriptedServer) -> list[tuple[int, bytes]]:
    """Return how many objects each list asked for, and after which."""
    found = (re.search(rb"[?]limit=(\d+)(?:&continue=(\w+))? ", request) for request in server.requests)
    return [(int(match[1]), match[2] or b"") for match in found if match]


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch) -> Reply:
    """Return a page that is larger than is read."""
    monkeypatch.setattr(watching, "MAX_PAGE_BYTES", 10_000)

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        await floods(b" " * 1000)(writer)

    return reply


async def test_page_that_is_too_large_is_asked_for_by_halves(tmp_path: Path, too_large: Reply) -> None:
    """From where the list was, and with the size that worked for the rest of it; the next list begins as ever."""
    first = (_list(_resource("web", "1"), following="AA"), too_large, too_large)
    rest = (_list(_resource("app", "2"), following="BB"), _list(version="11"))
    again = (_watch(_event("ERROR", {"code": 410})), _list(version="12"), _watch())
    async with _following(tmp_path, *first, *rest, *again) as (registry, told, server):
        assert {await _changed(told), await _changed(told)} == {WEB, APP}
        known = (registry.get(WEB), registry.get(APP))
        await server.asked(8)

    assert all(known)
    assert _asked(server) == [(500, b""), (500, b"AA"), (250, b"AA"), (125, b"AA"), (125, b"BB"), (500, b"")]
    assert told.restarts == ["gone"]


async def test_one_object_that_is_too_large_breaks_the_list(
    tmp_path: Path, too_large: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less cannot be asked for: the list fails, and is tried anew, with one object at a time, of any size."""
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 20_000)
    halves = [too_large] * 9
    async with _following(tmp_path, *halves, _list(_resource("web", "1")), _watch()) as (_, told, server):
        assert await _changed(told) == WEB

    assert [limit for limit, _ in _asked(server)] == [500, 250, 125, 62, 31, 15, 7, 3, 1, 1]
    assert told.restarts == ["kubernetes_unavailable"]


async def test_page_that_does_not_come_in_time_is_smaller_the_next_time(tmp_path: Path) -> None:
    """A list that is too slow as a whole is read in the end, page by page."""
    async with _following(tmp_path, hangs(), hangs(), _list(_resource("web", "1")), _watch(), timeout_seconds=0.2) as (
        _,
        told,
        server,
    ):
        assert await _changed(told) == WEB

    assert [limit for limit, _ in _asked(server)] == [500, 250, 125]
    assert told.restarts == ["kubernetes_timeout"] * 2


def _known(version: str) -> tuple[Memory, Told, Registration]:
    told = Told()
    memory = Memory(told, source="x", stale_seconds=90)
    memory.heard()
    memory.put(read_registration(_resource("web", version)))
    memory.on_change = told.changed.put_nowait
    return memory, told, memory._known[WEB]


async def test_what_this_process_has_written_is_known_before_the_watch_brings_it() -> None:
    """And is told of once: what the watch brings then is known already."""
    memory, told, seen = _known("7")
    now = replace(seen, status={"observedGeneration": 1}, resource_version="8")
    memory.written(replace(seen, status={}), now)
    first = memory.get(WEB), told.changed.qsize()
    memory.put(read_registration(_resource("web", "8")))

    assert first == (now, 1)
    assert told.changed.qsize() == 1


@pytest.mark.parametrize("meanwhile", ["9", None])
async def test_what_was_heard_of_meanwhile_counts_more_than_what_was_written(meanwhile: str | None) -> None:
    """Also that it is gone."""
    memory, _, seen = _known("7")
    memory.put(read_registration(_resource("web", meanwhile))) if meanwhile else memory.drop(WEB)
    before = memory.get(WEB)
    memory.written(seen, replace(seen, resource_version="8"))

    assert memory.get(WEB) is before


async def test_what_was_written_waits_for_the_source_where_nothing_was_heard_of_it() -> None:
    """Nobody could look at it: to be told would make a write that went well a failure."""
    memory, told, seen = _known("7")
    memory._freshness._heard -= 90
    memory.written(seen, replace(seen, resource_version="8"))
    memory.heard()

    assert memory.get(WEB) is seen
    assert told.changed.empty()


async def test_what_this_process_has_written_over_is_no_news_when_the_watch_brings_it() -> None:
    """It has written twice before the first of them was heard of; and no memory is left of it when both were."""
    memory, told, seen = _known("7")
    first = replace(seen, resource_version="8")
    second = replace(seen, resource_version="9")
    memory.written(seen, first)
    memory.written(first, second)
    memory.put(read_registration(_resource("web", "8")))
    between = memory.get(WEB)
    memory.put(read_registration(_resource("web", "9")))
    left = dict(memory._gone_over)
    memory.put(read_registration(_resource("web", "10")))
    known = memory.get(WEB)

    assert between is second
    assert left == {}
    assert known is not None
    assert known.resource_version == "10"
    assert told.changed.qsize() == 3


@pytest.mark.parametrize("how", ["listed", "gone"])
async def test_what_was_written_over_is_forgotten_when_all_is_known_anew(how: str) -> None:
    """After a watch that broke before it told of it."""
    memory, _, seen = _known("7")
    memory.written(seen, replace(seen, resource_version="8"))
    memory.replace_all([seen]) if how == "listed" else memory.drop(WEB)

    assert memory._gone_over == {}
