"""What the operator allows in a namespace: by name, by labels, the first entry that matches."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.config import Config, ConfigError, load
from broker.errors import BrokerError, Reason
from broker.kube.namespaces import WatchedNamespaces
from broker.limits import namespace_limits
from broker.metrics.counted import Metrics
from broker.model.client import Revocation, TtlRange, VaultCopy
from broker.model.decision import Rules, grant_problem
from broker.model.limits import LimitRule, NamespaceLimits, exceeded, labelled, limits_for
from broker.model.rate import Rate
from broker.server import run
from tests.support.rotation import grant

OPTED_IN = {"tokenbroker.dev/clients": "enabled"}
UNBOUND = {"tokenbroker.dev/unbound-tokens": "allowed"}
HOUR, DAY = 3600, 86400


def test_a_namespace_without_any_entry() -> None:
    """Any TTL and proof; no strong accounts, no unbound tokens."""
    assert limits_for((), "shop", {}) == NamespaceLimits(
        None, None, strong_accounts=False, unbound_tokens=False, opted_in=True
    )


def test_the_first_entry_that_matches_counts() -> None:
    """Whatever a later one says."""
    first, second = NamespaceLimits(HOUR), NamespaceLimits(DAY, strong_accounts=True)
    rules = (LimitRule(first, frozenset({"shop"})), LimitRule(second))

    assert limits_for(rules, "shop", {}) is first
    assert limits_for(rules, "other", {}) is second


@pytest.mark.parametrize(
    ("names", "labels", "matches"),
    [
        ((), {}, True),
        (("shop", "x"), {}, True),
        (("x",), {}, False),
        ((), {"tier": "lab"}, True),
        ((), {"tier": "lab", "team": "a"}, True),
        ((), {"tier": "lab", "team": "b"}, False),
        ((), {"missing": ""}, False),
        (("shop",), {"tier": "lab"}, True),
        (("shop",), {"tier": "prod"}, False),
        (("x",), {"tier": "lab"}, False),
    ],
)
def test_an_entry_matches_by_name_and_by_all_labels(
    names: tuple[str, ...], labels: Mapping[str, str], *, matches: bool
) -> None:
    """What it leaves out is not asked for."""
    entry = LimitRule(NamespaceLimits(), frozenset(names), labels)

    assert entry.matches("shop", {"tier": "lab", "team": "a"}) is matches


@pytest.mark.parametrize(
    ("longest", "vault", "allowed", "words"),
    [
        (HOUR, None, HOUR, None),
        (HOUR + 60, None, HOUR, "tokens of 1h at most"),
        (HOUR, HOUR, HOUR, None),
        (600, HOUR + 60, HOUR, "lower ttl.max and vault.ttl"),
        (DAY, DAY, None, None),
    ],
)
def test_the_longest_life(longest: int, vault: int | None, allowed: int | None, words: str | None) -> None:
    """Of what callers get and of what is in Vault."""
    wanted = grant(ttl=TtlRange(600, longest), vault=VaultCopy(vault, 300) if vault else None)
    found = exceeded(wanted, NamespaceLimits(allowed))

    assert (found is None) is (words is None)
    assert (words or "") in (found or "")


def test_tokens_that_only_expire() -> None:
    """They take the operator's word, and the namespace's label; other ways to end tokens take none."""
    wanted = grant(revocation=Revocation.NONE)
    allows = NamespaceLimits(unbound_tokens=True)

    assert "unbound_tokens" in (exceeded(wanted, NamespaceLimits()) or "")
    assert exceeded(wanted, allows) is None
    assert exceeded(grant(revocation=Revocation.TOKEN), NamespaceLimits()) is None
    assert labelled(allows, UNBOUND).unbound_tokens
    assert not labelled(allows, {"tokenbroker.dev/unbound-tokens": "true"}).unbound_tokens
    assert not labelled(NamespaceLimits(), UNBOUND).unbound_tokens


def test_a_namespace_has_to_be_opted_in() -> None:
    """By that value and no other; the refusal says how."""
    outside = labelled(NamespaceLimits(), {"tokenbroker.dev/clients": "true"})
    rules = Rules("tokenbroker", "https://kubernetes.default.svc", limits=lambda _namespace: outside)
    problem = grant_problem("shop", grant(), rules)

    assert labelled(NamespaceLimits(), OPTED_IN).opted_in
    assert problem is not None
    assert problem.reason is Reason.GRANT_FORBIDDEN
    assert "kubectl label namespace shop tokenbroker.dev/clients=enabled" in problem.detail


Load = Callable[..., Config]


@pytest.fixture
def configured(tmp_path: Path) -> Load:
    """Return what loads a configuration with these limits."""
    file, path = tmp_path / "file", tmp_path / "config.yaml"
    file.write_text("x")

    def loaded(limits: Any, **more: Any) -> Config:
        document = {
            "cluster": {"name": "lab", "server": "https://lab:6443", "ca_file": str(file)},
            "kubernetes": {"ca_file": str(file), "token_file": str(file)},
            "limits": limits,
        } | more
        path.write_text(yaml.safe_dump(document))
        return load(path)

    return loaded


def test_configuration_and_labels_together(configured: Load) -> None:
    """A configured entry becomes the limits of the namespaces that it names."""
    entry = {
        "namespaces": ["shop"],
        "namespace_labels": {"tier": "lab"},
        "max_ttl": "1h30m",
        "proofs": ["oidc", "certificate"],
        "strong_accounts": True,
        "unbound_tokens": True,
        "rate": {"per_minute": 600, "burst": 100},
    }
    labels = {"shop": OPTED_IN | UNBOUND | {"tier": "lab"}, "other": OPTED_IN, "out": {}}
    limits = namespace_limits(configured([entry]), labels.__getitem__)

    assert limits("shop") == NamespaceLimits(
        5400, frozenset({"oidc", "certificate"}), strong_accounts=True, unbound_tokens=True, rate=Rate(600, 100)
    )
    assert limits("other") == NamespaceLimits()
    assert limits("out") == NamespaceLimits(opted_in=False)


def test_limits_follow_the_labels(configured: Load) -> None:
    """Those that were found before count for as long as what they were found by."""
    labels = {"shop": OPTED_IN | {"tier": "lab"}}
    limits = namespace_limits(configured([{"namespace_labels": {"tier": "lab"}, "max_ttl": "1h"}]), labels.__getitem__)
    before = limits("shop").max_ttl_seconds
    labels["shop"] = OPTED_IN

    assert (before, limits("shop").max_ttl_seconds) == (HOUR, None)


def test_limits_are_not_known_where_the_labels_are_too_old(configured: Load) -> None:
    """Also those that were found before: what they were found by may have changed."""
    stale, labels = False, {"tier": "lab", **OPTED_IN}

    def known(_namespace: str) -> Mapping[str, str]:
        if stale:
            raise BrokerError(Reason.REGISTRY_STALE, "labels")
        return labels

    limits = namespace_limits(configured([{"namespace_labels": {"tier": "lab"}, "max_ttl": "1h"}]), known)
    rules = Rules("tokenbroker", "https://api", limits=limits)
    before = grant_problem("shop", grant(ttl=TtlRange(HOUR, HOUR), vault=None), rules)
    stale = True

    assert before is None
    with pytest.raises(BrokerError, match="registry_stale"):
        grant_problem("shop", grant(), rules)


def test_without_labels_the_name_alone_counts(configured: Load) -> None:
    """Where clients stand in a directory, a namespace counts as opted in, and admission has the last word."""
    limits = namespace_limits(configured([{"namespaces": ["shop"], "unbound_tokens": True}]), None)

    assert limits("shop") == NamespaceLimits(unbound_tokens=True)
    assert limits("other") == NamespaceLimits()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ([{"max_ttl": "5m"}], r"limits\.0\.max_ttl: must be a duration from 10m to 24h"),
        ([{"max_ttl": "25h"}], r"limits\.0\.max_ttl: must be"),
        ([{"max_ttl": 3600}], r"limits\.0\.max_ttl: must be"),
        ([{"max_ttl": "soon"}], r"limits\.0\.max_ttl"),
        ([{"proofs": ["password"]}], r"limits\.0\.proofs"),
        ([{"namespaces": ["Not A Label"]}], r"limits\.0\.namespaces\.0: must be a DNS label"),
        ([{"namespaces": ["*"]}], r"limits\.0\.namespaces\.0"),
        ([{"namespace_labels": {"tier": True}}], r"limits\.0\.namespace_labels\.tier"),
        ([{"namespace_labels": ["tier"]}], r"limits\.0\.namespace_labels"),
        ([{"strong_accounts": "perhaps"}], r"limits\.0\.strong_accounts"),
        ([{"rate": 60}], r"limits\.0\.rate"),
        ([{"rate": {"per_minute": 0}}], r"limits\.0\.rate\.per_minute"),
        ([{"rate": {"per_minute": "60"}}], r"limits\.0\.rate\.per_minute"),
        ([{"rate": {"burst": 10}}], r"limits\.0\.rate\.per_minute"),
        ([{"rate": {"per_minute": 100_001}}], r"limits\.0\.rate\.per_minute"),
        ([{"strong": True}], r"limits\.0\.strong"),
        ({"max_ttl": "1h"}, "limits"),
        ([{}] * 65, "limits"),
        ([{"max_ttl": "1h"}, {"namespaces": ["shop"]}], "entry 1 is for every namespace, so none after it counts"),
    ],
    ids=str,
)
def test_limits_that_would_not_be_what_they_say(
    configured: Load, tmp_path: Path, limits: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker does not start with them: exit code 2, and the place is named."""
    with pytest.raises(ConfigError, match=words):
        configured(limits)

    assert run(tmp_path / "config.yaml") == 2
    assert "limits" in capsys.readouterr().err


def test_labels_of_namespaces_are_not_known_to_a_directory(configured: Load, tmp_path: Path) -> None:
    """An entry that could never match is a mistake."""
    with pytest.raises(ConfigError, match="name them"):
        configured([{"namespace_labels": {"tier": "lab"}}], registry={"directory": str(tmp_path)})


class Followed:
    """Namespaces whose changes are noted."""

    def __init__(self) -> None:
        nobody: Any = None
        self.changed: list[str] = []
        self.namespaces = WatchedNamespaces(nobody, Metrics())
        self.namespaces.on_change = self.changed.append

    def news(self) -> list[str]:
        """Return whose labels came or changed since it was asked last."""
        news = sorted(self.changed)
        self.changed.clear()
        return news


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """Return a Namespace as the API server lists it."""
    return {"metadata": {"name": name, "labels": labels} if labels else {"name": name}}


async def test_labels_are_not_known_before_they_were_listed() -> None:
    """Not known is not "none": nothing is decided then."""
    namespaces = Followed().namespaces
    with pytest.raises(BrokerError) as unknown:
        namespaces.labels("shop")

    assert unknown.value.reason is Reason.REGISTRY_STALE
    namespaces.listed([])
    assert namespaces.labels("shop") == {}


async def test_changes_of_labels_are_told() -> None:
    """Each namespace whose labels came, changed or went, and no other; of a new list, too."""
    followed = Followed()
    namespaces = followed.namespaces
    namespaces.listed([namespace("shop", tier="lab"), namespace("bare")])
    first = followed.news()
    namespaces.put(namespace("shop", tier="lab"))
    same = followed.news()
    namespaces.put(namespace("shop", tier="prod"))
    changed = followed.news(), namespaces.labels("shop")
    namespaces.gone(namespace("shop"))
    gone = namespaces.labels("shop")
    namespaces.put(namespace("shop"))
    again = followed.news()
    namespaces.listed([namespace("bare", tier="lab")])

    assert first == ["bare", "shop"]
    assert same == []
    assert changed == (["shop"], {"tier": "prod"})
    assert gone == {}
    assert again == ["shop"]
    assert followed.news() == ["bare", "shop"]
    assert namespaces.labels("shop") == {}
