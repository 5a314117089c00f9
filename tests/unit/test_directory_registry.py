"""The registry follows a directory through everything that happens to one."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from broker.directory import files as reading
from broker.directory import registry as looking
from broker.directory.notes import LoggedEvents, LoggedStatuses
from broker.directory.registry import DirectoryRegistry
from broker.logs import json_line
from broker.ports import Registration
from tests.support.bad_specs import GOOD
from tests.support.processes import until
from tests.support.registries import DirectorySource, Followed, text_of


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "POLL_SECONDS", 0.02)


@dataclass(slots=True)
class Looks:
    """Counts what is looked at and read."""

    times: int = 0
    read: list[str] = field(default_factory=list)

    async def more(self, times: int) -> None:
        """Wait for so many looks more."""
        enough = self.times + times

        async def looked() -> bool:
            return self.times >= enough

        await until(looked, what="it is looked at again")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Count."""
    counted = Looks()

    def look(folder: Path) -> tuple[reading.Entry, ...]:
        counted.times += 1
        return reading.look(folder)

    def read(folder: Path, entry: reading.Entry) -> bytes | reading.Unreadable:
        counted.read.append(entry.name)
        return reading.read(folder, entry)

    monkeypatch.setattr(looking, "look", look)
    monkeypatch.setattr(looking, "read", read)
    return counted


@pytest.fixture
def source(tmp_path: Path) -> DirectorySource:
    """Return a directory."""
    return DirectorySource(tmp_path / "clients")


@pytest.fixture
async def followed(source: DirectorySource) -> AsyncIterator[Followed]:
    """Follow it."""
    async with Followed.start(source, "shop") as running:
        yield running


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    """Return what is logged."""
    with capture_logs() as lines:
        yield lines


def _good(name: str, **changes: Any) -> str:
    return text_of("shop", name, GOOD | changes)


async def test_configmap_is_swapped_as_a_whole(followed: Followed, source: DirectorySource) -> None:
    """Every change between two of its states is told of once."""
    await source.swap({"a.yaml": _good("web"), "b.yml": _good("app"), "c.yaml": _good("stays")})
    await followed.changes("web", "app", "stays")
    await source.swap({"a.yaml": _good("web", suspend=True), "d.yaml": _good("new"), "c.yaml": _good("stays")})
    await followed.changes("web", "app", "new")

    assert followed.client("app") is None


async def test_only_yaml_is_looked_at(followed: Followed, source: DirectorySource) -> None:
    """Neither what is hidden, nor what is called otherwise, nor what lies deeper."""
    (source.folder / ".hidden.yaml").write_text(_good("hidden"))
    (source.folder / "notes.txt").write_text(_good("notes"))
    (source.folder / "deeper").mkdir()
    (source.folder / "deeper" / "a.yaml").write_text(_good("deeper"))
    (source.folder / "z.yaml").write_text(_good("web"))
    await followed.changes("web")

    assert followed.told.sizes[-1] == (1, 0)


async def test_file_that_is_being_written_is_not_read_by_halves(
    followed: Followed, source: DirectorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts once two looks in a row saw the same: what is cut off may be the restriction."""
    monkeypatch.setattr(looking, "POLL_SECONDS", 0.2)
    whole = text_of("shop", "web", {**GOOD, "suspend": True})
    for number in range(20):
        (source.folder / "a.yaml").write_text(whole.replace(', "suspend": true', "") + "\n" * number)
        await asyncio.sleep(0.03)  # the writer's pace, which is faster than looks are
    (source.folder / "a.yaml").write_text(whole)
    await followed.changes("web")

    client = followed.client("web")
    assert client is not None
    assert client.suspended


async def test_directory_that_does_not_change_is_believed(
    source: DirectorySource, monkeypatch: pytest.MonkeyPatch, looks: Looks
) -> None:
    """Seeing that nothing happened is news enough; nothing is read again for it."""
    monkeypatch.setattr(looking, "STALE_SECONDS", 0.3)
    await source.swap({"a.yaml": _good("web")})
    async with Followed.start(source, "shop") as followed:
        await looks.more(30)

        assert not await followed.stale()
        assert looks.read == ["a.yaml"]


async def test_file_that_stayed_the_same_is_not_read_again(
    followed: Followed, source: DirectorySource, looks: Looks
) -> None:
    """With ten thousand clients that would take seconds."""
    (source.folder / "a.yaml").write_text(_good("web"))
    (source.folder / "b.yaml").write_text(_good("app"))
    await followed.changes("web", "app")
    (source.folder / "b.yaml").write_text(_good("app", suspend=True))
    await followed.changes("app")

    assert looks.read.count("a.yaml") == 1


async def test_directory_that_changes_while_it_is_read_is_read_again(
    source: DirectorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two states, no mixture is served."""
    await source.swap({"a.yaml": _good("web"), "b.yaml": _good("app")})
    read = reading.read
    swaps = 0

    def swapped_in_between(folder: Path, entry: reading.Entry) -> bytes | reading.Unreadable:
        nonlocal swaps
        swaps += 1
        if swaps == 2:  # after the first file, before the second
            asyncio.run(source.swap({"a.yaml": _good("web", suspend=True), "b.yaml": _good("other")}))
        return read(folder, entry)

    monkeypatch.setattr(looking, "read", swapped_in_between)
    async with Followed.start(source, "shop") as followed:
        web = followed.client("web")
        assert web is not None
        assert web.suspended
        await followed.changes("web", "other")


async def test_broken_file_is_told_of_once_and_serves_nobody(
    followed: Followed, source: DirectorySource, logged: list[EventDict]
) -> None:
    """Its clients are known as invalid, others go on, and it counts again when it is mended."""
    await source.swap({"a.yaml": _good("web"), "b.yaml": _good("app")})
    await followed.changes("web", "app")
    await source.swap({"a.yaml": "{", "b.yaml": _good("app")})
    await followed.changes("web")
    broken = followed.registry.get(followed.id("web"))
    await source.swap({"a.yaml": "{", "b.yaml": _good("app", owner="x")})
    await followed.changes("app")

    assert broken is not None
    assert broken.client is None
    assert [line["file"] for line in logged if line["event"] == "registry.file_broken"] == ["a.yaml"]
    assert (followed.told.broken[-1], followed.told.sizes[-1]) == (1, (1, 1))
    await source.swap({"a.yaml": _good("web"), "b.yaml": _good("app", owner="x")})
    await followed.changes("web")
    assert (followed.told.broken[-1], followed.told.sizes[-1]) == (0, (2, 0))


@pytest.mark.parametrize("kind", ["pipe", "directory", "link to nothing", "no permission", "too large"])
async def test_what_is_no_readable_file_is_broken_and_holds_up_nothing(
    followed: Followed, source: DirectorySource, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe would never end, and others are served on."""
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 1000)
    path = source.folder / "odd.yaml"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "link to nothing":
            path.symlink_to("nothing")
        case "no permission":
            path.symlink_to("/proc/self/mem")
        case "too large":
            path.write_text(_good("web") + " " * 1000)
    (source.folder / "a.yaml").write_text(_good("app"))
    await followed.changes("app")

    assert followed.told.broken[-1] == 1


async def test_name_that_is_not_utf8_is_shown_escaped_and_holds_up_nothing(
    followed: Followed, source: DirectorySource, logged: list[EventDict]
) -> None:
    """Such a file is read like any other, and where it is broken it can be found by its name in the log."""
    odd = source.folder / os.fsdecode(b"\xff.yaml")
    odd.write_text("{")
    (source.folder / "a.yaml").write_text(_good("app"))
    await followed.changes("app")
    broken = [json_line(line) for line in logged if line["event"] == "registry.file_broken"]
    odd.write_text(_good("web"))
    await followed.changes("web")
    (source.folder / "b.yaml").write_text(_good("web"))
    await followed.changes("web")
    twice = _known(followed).fault

    assert [orjson.loads(line)["file"] for line in broken] == [r"\xff.yaml"]
    assert followed.client("app") is not None
    assert twice is not None
    assert r"in \xff.yaml, b.yaml" in twice.message


async def test_link_may_lead_to_another_secret_and_nothing_of_it_is_shown(
    followed: Followed, source: DirectorySource, logged: list[EventDict], tmp_path: Path
) -> None:
    """Who may write to the directory must not read the broker's files through its log."""
    (tmp_path / "token").write_text("eyJhbGciOi.secret: [")
    (source.folder / "a.yaml").symlink_to(tmp_path / "token")
    (source.folder / "b.yaml").write_text(_good("app"))
    await followed.changes("app")

    assert "secret" not in str(logged)
    assert followed.told.broken[-1] == 1


@pytest.mark.parametrize(("bound", "value"), [("MAX_FILES", 1), ("MAX_TOTAL_BYTES", 400)])
async def test_directory_that_holds_too_much_is_not_read(
    source: DirectorySource,
    bound: str,
    value: int,
    logged: list[EventDict],
    looks: Looks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody could say which files to leave out. It is said once, and what was read before counts for a while."""
    said = "registry.directory_unreadable"
    monkeypatch.setattr(reading, bound, value)
    await source.swap({"a.yaml": _good("web")})
    async with Followed.start(source, "shop") as followed:
        followed.told.changed.clear()
        await source.swap({"a.yaml": _good("web", suspend=True), "b.yaml": _good("app")})
        await looks.more(5)
        client = followed.client("web")

        assert client is not None
        assert not client.suspended
        assert [line["event"] for line in logged].count(said) == 1
        await source.swap({"a.yaml": _good("web", suspend=True)})
        await followed.changes("web")
        await source.swap({"a.yaml": _good("web"), "b.yaml": _good("app")})
        await looks.more(5)
    assert [line["event"] for line in logged].count(said) == 2


async def test_directory_that_was_replaced_is_followed(followed: Followed, source: DirectorySource) -> None:
    """Git checkouts are often swapped by a link."""
    await source.swap({"a.yaml": _good("web")})
    await followed.changes("web")
    await source.cut()
    source.folder.mkdir()
    (source.folder / "a.yaml").write_text(_good("app"))
    await followed.changes("app", "web")

    assert followed.client("web") is None


async def test_status_is_kept_and_each_new_condition_logged(
    followed: Followed, source: DirectorySource, logged: list[EventDict]
) -> None:
    """There is no resource to write to; what was said already is not said again, and no change is told of."""
    registry = _directory(followed)
    writer = LoggedStatuses(registry)
    await source.apply(_good("web"))
    await followed.changes("web")
    await writer.write(_known(followed), _status("Ready", "False", "Pending", "wait"))
    await writer.write(_known(followed), _status("Ready", "False", "Pending", "wait"))
    await writer.write(_known(followed), _status("Ready", "True", "Ready", "go"))
    lines = [line for line in logged if line["event"] == "client.condition"]

    assert [(line["log_level"], line["client"], line["why"], line["detail"]) for line in lines] == [
        ("warning", "shop/web", "Pending", "wait"),
        ("info", "shop/web", "Ready", "go"),
    ]
    assert _known(followed).status == _status("Ready", "True", "Ready", "go")
    await source.apply(_good("web", owner="x"))
    await followed.changes("web")
    assert _known(followed).status == _status("Ready", "True", "Ready", "go")


async def test_status_of_what_changed_meanwhile_is_not_kept(followed: Followed, source: DirectorySource) -> None:
    """It tells of other words."""
    await source.apply(_good("web"))
    await followed.changes("web")
    old = _known(followed)
    await source.apply(_good("web", owner="x"))
    await followed.changes("web")
    await LoggedStatuses(_directory(followed)).write(old, _status("Ready", "True", "Ready", "go"))

    assert _known(followed).status == {}


async def test_event_is_logged_unless_a_condition_says_it(
    followed: Followed, source: DirectorySource, logged: list[EventDict]
) -> None:
    """One line a change."""
    registry = _directory(followed)
    await source.apply(_good("web"))
    await followed.changes("web")
    await LoggedStatuses(registry).write(_known(followed), _status("Ready", "True", "Ready", "go"))
    events = LoggedEvents(registry)
    await events.record(_known(followed), "Ready", "The client can get tokens.", warning=False)
    await events.record(_known(followed), "ProofMismatch", "A genuine token was refused.", warning=True)
    lines = [line for line in logged if line["event"] == "client.event"]

    assert [(line["log_level"], line["why"]) for line in lines] == [("warning", "ProofMismatch")]


def _status(kind: str, value: str, reason: str, message: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": value, "reason": reason, "message": message}]}


def _directory(followed: Followed) -> DirectoryRegistry:
    assert isinstance(followed.registry, DirectoryRegistry)
    return followed.registry


def _known(followed: Followed) -> Registration:
    registration = followed.registry.get(followed.id("web"))
    assert registration is not None
    return registration
