"""The labels of namespaces: known once they were listed, and told of when they change."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.kube import reflector as watching
from broker.kube.namespaces import WatchedNamespaces
from broker.kube.session import KubeSession
from broker.metrics.counted import Metrics
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.support.scripted import answer, says, scripted


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """Return a Namespace."""
    return {"metadata": {"name": name, "labels": labels} if labels else {"name": name}}


@pytest.fixture
def watched(tmp_path: Path) -> WatchedNamespaces:
    """Return a memory that nothing was told yet."""
    (tmp_path / "token").write_text("own.token")
    session = KubeSession("https://127.0.0.1:9", Authority.create(tmp_path, "x").file, tmp_path / "token", 1)
    return WatchedNamespaces(session, Metrics())


async def test_nothing_is_known_before_they_were_listed(watched: WatchedNamespaces) -> None:
    """A namespace without labels is no answer to whether it has any."""
    with pytest.raises(BrokerError) as refused:
        watched.labels("shop")

    assert refused.value.reason is Reason.REGISTRY_STALE


async def test_labels_are_those_of_the_last_list(watched: WatchedNamespaces) -> None:
    """A namespace that is not there has none."""
    watched.listed([namespace("shop", team="a"), namespace("bare")])

    assert (watched.labels("shop"), watched.labels("bare"), watched.labels("gone")) == ({"team": "a"}, {}, {})


async def test_only_changes_are_told_of(watched: WatchedNamespaces) -> None:
    """Whoever is told may ask at once."""
    told: list[tuple[str, dict[str, str]]] = []
    watched.on_change = lambda name: told.append((name, dict(watched.labels(name))))

    watched.listed([namespace("shop", team="a"), namespace("bare", x="y")])
    first, told[:] = sorted(told), []
    watched.listed([namespace("shop", team="b"), namespace("bare", x="y")])
    watched.put(namespace("shop", team="b"))
    watched.put(namespace("shop"))
    watched.put(namespace("new", team="c"))
    watched.gone(namespace("bare"))

    assert first == [("bare", {"x": "y"}), ("shop", {"team": "a"})]
    assert told == [("shop", {"team": "b"}), ("shop", {}), ("new", {"team": "c"})]
    assert watched.labels("bare") == {}


async def test_labels_count_for_as_long_as_the_watch_speaks(
    watched: WatchedNamespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label that the operator took away while the watch was broken must not allow anything for ever."""
    loop, now = asyncio.get_running_loop(), 1000.0
    monkeypatch.setattr(loop, "time", lambda: now)
    watched.listed([namespace("shop", team="a")])
    now += watching.STALE_SECONDS - 1
    young = watched.labels("shop")
    now += 1
    assert not watched.fresh
    with pytest.raises(BrokerError) as refused:
        watched.labels("shop")
    watched.heard()

    assert young == watched.labels("shop") == {"team": "a"}
    assert refused.value.reason is Reason.REGISTRY_STALE
    assert "Namespaces for 90 s" in refused.value.operator_detail


async def test_broken_watch_makes_labels_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither a watch nor a list is answered any more, the labels of the last list soon do not count."""
    monkeypatch.setattr(watching, "STALE_SECONDS", 0.2)
    (tmp_path / "token").write_text("own.token")
    listed = b'{"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "shop", "labels": {"a": "b"}}}]}'
    authority = Authority.create(tmp_path, "x")
    async with (
        scripted(says(answer(200, listed))) as server,
        KubeSession(server.url, authority.file, tmp_path / "token", 0.1) as session,
    ):
        followed = WatchedNamespaces(session, Metrics())
        running = asyncio.create_task(followed.run())
        await asyncio.wait_for(followed.synced.wait(), 5)
        fresh = followed.fresh

        async def old() -> bool:
            return not followed.fresh

        await until(old, what="the labels are old")
        running.cancel()
        await asyncio.wait([running])

    assert fresh
    with pytest.raises(BrokerError, match="registry_stale"):
        followed.labels("shop")
