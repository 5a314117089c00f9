"""``client add`` where it needs no cluster: printing for git, and refusing what cannot be meant."""

from pathlib import Path

import pytest
import yaml

from broker.identity import secret
from tests.support.command import command

ADD = ("client", "add", "web", "-n", "shop", "--service-account", "web")


def test_yaml_needs_no_cluster_and_carries_no_secret(tmp_path: Path) -> None:
    """The manifests have the digest, the file has the secret, for its owner only and without a line end."""
    file = tmp_path / "secret"
    ended = command(*ADD, "-o", "yaml", "--secret-file", str(file))
    made = file.read_text()

    assert ended.code == 0, ended.stderr
    assert secret.well_formed(made)
    assert made not in ended.stdout + ended.stderr
    assert secret.format_digest(secret.digest(made)) in ended.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert [it["kind"] for it in yaml.safe_load_all(ended.stdout)] == ["Role", "RoleBinding", "TokenClient"]


def test_client_for_vault_alone_has_no_secret() -> None:
    """With --no-secret nobody can call the broker as this client."""
    ended = command(*ADD, "-o", "yaml", "--no-secret", "--vault")
    client = list(yaml.safe_load_all(ended.stdout))[-1]

    assert ended.code == 0, ended.stderr
    assert "authentication" not in client["spec"]


def test_broker_may_live_elsewhere() -> None:
    """--broker names the account that the mint Role goes to."""
    ended = command(*ADD, "-o", "yaml", "--no-secret", "--vault", "--broker", "security/tokens")
    binding = list(yaml.safe_load_all(ended.stdout))[1]

    assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "security", "name": "tokens"}]


def test_file_that_exists_is_never_touched(tmp_path: Path) -> None:
    """A secret file of another client is not overwritten, nor removed."""
    file = tmp_path / "secret"
    file.write_text("another's")
    ended = command(*ADD, "-o", "yaml", "--secret-file", str(file))

    assert ended.code == 2
    assert "is not overwritten" in ended.stderr
    assert file.read_text() == "another's"


def test_secret_file_goes_away_when_nothing_was_made(tmp_path: Path) -> None:
    """A refused client leaves no secret behind that opens nothing."""
    file = tmp_path / "secret"
    ended = command(*ADD, "-o", "yaml", "--secret-file", str(file), "--ttl", "1m")

    assert ended.code == 2
    assert not file.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "yaml"), "--secret-file"),
        (("--no-secret", "--secret-file", "x", "--vault"), "contradict"),
        (("--vault-ttl", "12h"), "add --vault"),
        (("--rule", "get /metrics"), "nonResourceURLs"),
        (("--broker", "tokens"), "broker's account"),
        (("--kubeconfig", "/nowhere/config"), "there is no kubeconfig /nowhere/config"),
    ],
)
def test_what_cannot_be_meant_exits_with_2(options: tuple[str, ...], words: str) -> None:
    """One sentence on stderr, nothing on stdout."""
    ended = command(*ADD, *options)

    assert ended.code == 2
    assert words in ended.stderr
    assert ended.stdout == ""


def test_kubeconfig_is_not_quoted(tmp_path: Path) -> None:
    """A broken kubeconfig is refused without showing what is in it."""
    config = tmp_path / "config"
    config.write_text("users: [{token: very-secret-token\n")
    ended = command("client", "list", "--kubeconfig", str(config))

    assert ended.code == 2
    assert "not valid YAML" in ended.stderr
    assert "very-secret" not in ended.stderr
