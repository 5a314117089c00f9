"""The labels of namespaces: known once they were listed, and told of when they change."""

from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.namespaces import WatchedNamespaces
from broker.kube.session import KubeSession
from broker.metrics import Metrics
from tests.support.certificates import Authority


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
