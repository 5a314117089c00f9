"""When the bench takes a copy in Vault for written."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from bench.copies import Recorded, first_version, last_written, written
from bench.errors import BenchError
from broker.metrics.counted import Metrics
from broker.model.client import ClientId

SINCE = datetime(2026, 11, 1, 12, tzinfo=UTC)


def _record(client: str, delivery: str = "vault") -> str:
    return f'{{"event":"token.issued","client":"{client}","delivery":"{delivery}"}}\n'


def _versions(*seconds: float) -> dict[str, dict[str, str]]:
    """Return versions as Vault tells of them, written so long after SINCE."""
    times = [SINCE + timedelta(seconds=second) for second in seconds]
    return {str(number): {"created_time": f"{time:%FT%T.%f}123Z"} for number, time in enumerate(times, 1)}


class _Vault:
    """Has copies; ``later`` those that are there at the second look."""

    def __init__(self, copies: dict[str, Any], later: dict[str, Any] | None = None) -> None:
        self._copies = copies
        self._later = later or {}
        self.asked: list[str] = []

    async def api(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        """Answer with the metadata of a copy."""
        client = path.removeprefix("secret/metadata/tokenbroker/lab/").removesuffix("/default")
        copies = self._later if client in self.asked else self._copies
        self.asked.append(client)
        return (200, {"data": {"versions": copies[client]}}) if method == "GET" and client in copies else (404, {})


def test_a_client_whose_copy_is_tried_twice_is_one(tmp_path: Path) -> None:
    """A write that fails has left a record, and the next attempt leaves another one."""
    audit = tmp_path / "audit.jsonl"
    recorded = Recorded(audit)
    audit.write_text(_record("shop/a") + _record("shop/a") + _record("shop/b", "response") + _record("shop/c")[:20])
    before = recorded.count()
    with audit.open("a") as file:
        file.write(_record("shop/c")[20:])

    assert (before, recorded.count()) == (1, 2)


def test_what_was_recorded_before_does_not_count(tmp_path: Path) -> None:
    """The copies of the time before have records, too."""
    audit = tmp_path / "audit.jsonl"
    audit.write_text(_record("shop/a"))
    recorded = Recorded(audit)
    with audit.open("a") as file:
        file.write(_record("shop/b"))

    assert recorded.count() == 1


def test_only_what_succeeded_is_written() -> None:
    """As the broker's own page of metrics tells."""
    metrics = Metrics()
    for name, outcome in (("a", "success"), ("a", "success"), ("a", "vault_unavailable"), ("b", "vault_unavailable")):
        metrics.vault.vault_written(ClientId("shop", name), "default", outcome)

    assert written(generate_latest(metrics.registry).decode()) == 1


def test_the_first_version_since_is_the_one_that_counts() -> None:
    """A later one is another renewal."""
    assert first_version(_versions(-60, 2.5, 40), SINCE) == SINCE + timedelta(seconds=2.5)
    assert first_version(_versions(-60, -1), SINCE) is None


async def test_the_last_copy_to_be_written_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked about again, and those that are there are not."""
    monkeypatch.setattr("bench.copies.AGAIN_SECONDS", 0)
    vault = _Vault({"shop/a": _versions(-60, 7), "shop/b": _versions(-60)}, {"shop/b": _versions(-60, 5)})
    last = await last_written(vault, ["shop/a", "shop/b"], SINCE, 10)

    assert last == SINCE + timedelta(seconds=7)
    assert sorted(vault.asked) == ["shop/a", "shop/b", "shop/b"]


async def test_a_copy_that_is_never_written_is_named() -> None:
    """However often a record said that it would be."""
    with pytest.raises(BenchError, match="1 copies have no new version in Vault, such as that of shop/a"):
        await last_written(_Vault({"shop/a": _versions(-60)}), ["shop/a"], SINCE, -1)


async def test_a_vault_without_the_copy_ends_the_bench() -> None:
    """It is no matter of waiting."""
    with pytest.raises(ExceptionGroup) as raised:
        await last_written(_Vault({}), ["shop/a"], SINCE, 10)

    assert raised.group_contains(BenchError, match="answered 404 about the copy of shop/a")
