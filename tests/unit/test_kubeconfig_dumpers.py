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
        texts.append(written.kubeconfig(CLUSTER, namespace, user, token))

    assert texts[0] == texts[1]
    assert f'"namespace": "{namespace}"\n' in texts[1]


def test_the_fast_one_is_used() -> None:
    """Where it is there, as in every wheel of PyYAML."""
    assert written._DUMPER is yaml.CSafeDumper
