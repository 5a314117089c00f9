"""The shapes in which readers of Vault find a token."""

import base64
import json
from datetime import UTC, datetime

import pytest
import yaml

from broker.model.cluster import ClusterInfo
from broker.model.kubeconfig import kubeconfig
from broker.model.sensitive import Sensitive
from broker.model.token import MintedToken
from broker.model.vault_secret import vault_secret

CLUSTER = ClusterInfo("prod", "https://api.prod.example", "PEM\n")
TOKEN = MintedToken(
    Sensitive("the-token"),
    "jti",
    datetime(2026, 11, 24, 12, tzinfo=UTC),
    datetime(2026, 11, 25, tzinfo=UTC),
    "hash",
)
NAMES = ["null", "~", "123", "1e3", "0x1f", "0o17", "true", "yes", "on", "1.5", "2026-11-24", "a: b", "-", "{}", "'\""]


def test_every_reader_finds_its_keys() -> None:
    """The keys are those of a service account's Secret, of Argo CD, of kubectl, and the expiry."""
    data = vault_secret(CLUSTER, "shop", "reporter", TOKEN)
    plain = {key: value for key, value in data.items() if isinstance(value, str)}

    assert plain == {
        "ca.crt": "PEM\n",
        "namespace": "shop",
        "server": "https://api.prod.example",
        "name": "prod",
        "expirationTimestamp": "2026-11-25T00:00:00Z",
    }
    assert set(data) - set(plain) == {"token", "config", "kubeconfig"}


def test_argo_cd_gets_its_config_as_text() -> None:
    """The value is a JSON text with the token and the CA in base64."""
    config = vault_secret(CLUSTER, "shop", "reporter", TOKEN)["config"]

    assert isinstance(config, Sensitive)
    assert json.loads(config.reveal()) == {
        "bearerToken": "the-token",
        "tlsClientConfig": {"insecure": False, "caData": base64.b64encode(b"PEM\n").decode()},
    }


def test_nothing_prints_the_token() -> None:
    """Neither the data nor the token shows itself in a log."""
    assert "the-token" not in repr((vault_secret(CLUSTER, "shop", "reporter", TOKEN), TOKEN))


@pytest.mark.parametrize("name", NAMES)
def test_names_come_back_as_the_strings_they_were(name: str) -> None:
    """Namespaces and accounts that look like something else to YAML stay strings."""
    document = yaml.safe_load(kubeconfig(ClusterInfo(name, "https://x", "PEM"), name, name, Sensitive(name)))

    (context,) = document["contexts"]
    assert context == {"name": name, "context": {"cluster": name, "user": name, "namespace": name}}
    assert document["current-context"] == document["clusters"][0]["name"] == name
    assert document["users"] == [{"name": name, "user": {"token": name}}]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_quoted_for_parsers_of_every_age(name: str) -> None:
    """YAML 1.1, 1.2 and JSON disagree on bare words (1e3 is a number to Go, not to Python): none is bare."""
    text = kubeconfig(ClusterInfo(name, "https://x", "PEM"), name, name, Sensitive("t"))

    values = [line.split(": ", 1)[1] for line in text.splitlines() if ": " in line]
    assert all(value.startswith('"') and value.endswith('"') for value in values)
