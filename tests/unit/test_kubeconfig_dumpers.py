"""A kubeconfig is the same text whether or not libyaml is there to write it."""

import pytest
import yaml

from broker.model import kubeconfig as written
from broker.model.cluster import ClusterInfo
from broker.model.sensitive import Sensitive

CLUSTER = ClusterInfo("prod: \u00e4", "https://api.example:6443", "-----BEGIN CERTIFICATE-----\n" + "A" * 4000 + "\n")


@pytest.mark.parametrize("namespace", ["shop", "null", "123", "1e3", "true", "a-" * 31 + "a"])
def test_both_write_the_same(monkeypatch: pytest.MonkeyPatch, namespace: str) -> None:
    """One line a value, every string quoted."""
    user, token = f"{namespace}/reporter", Sensitive("e" * 1200)
    texts = []
    for dumper in (yaml.SafeDumper, yaml.CSafeDumper):
        monkeypatch.setattr(written, "_DUMPER", dumper)
        written._around_the_token.cache_clear()
        texts.append(written.kubeconfig(CLUSTER, namespace, user, token))

    assert texts[0] == texts[1]
    assert f'"namespace": "{namespace}"\n' in texts[1]


NAMES = ("shop", "null", 'a"token": "b', "\\", "the: token", "\u00e4\n")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("token", ["eyJ.a-b_c", "", 'x"y\\', "a b", "\u00e4"])
def test_a_token_is_where_it_belongs_whatever_surrounds_it(name: str, token: str) -> None:
    """What is the same for all tokens is written once; the second one is as good as the first."""
    cluster = ClusterInfo(name, "https://api.example", "ca")
    for value in ("eyJ.first", token):
        document = yaml.safe_load(written.kubeconfig(cluster, name, name, Sensitive(value)))
        serialized = written._kubeconfig(cluster, name, name, {"token": value})

        assert document["users"] == [{"name": name, "user": {"token": value}}]
        assert document == yaml.safe_load(serialized)
        assert written.kubeconfig(cluster, name, name, Sensitive(value)) == serialized


def test_no_two_accounts_are_mixed_up() -> None:
    """Each has its own surroundings."""
    accounts = [("a", "u"), ("b", "u"), ("a", "v"), ("a", "u")]
    texts = [written.kubeconfig(CLUSTER, namespace, user, Sensitive("eyJ.x")) for namespace, user in accounts]

    assert len(set(texts)) == 3
    assert texts[0] == texts[3]


def test_the_fast_one_is_used() -> None:
    """Where it is there, as in every wheel of PyYAML."""
    assert written._DUMPER is yaml.CSafeDumper
