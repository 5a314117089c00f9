"""``client render``: what goes to git, without a cluster."""

from pathlib import Path

import pytest
import yaml

from broker.identity import secret
from tests.support.command import command

RENDER = ("client", "render", "web", "-n", "shop", "--service-account", "web")


def test_it_needs_no_cluster_and_carries_no_secret(tmp_path: Path) -> None:
    """The manifests have the digest, the file has the secret, for its owner only and without a line end."""
    file = tmp_path / "secret"
    ended = command(*RENDER, "--secret-file", str(file))
    made = file.read_text()

    assert ended.code == 0, ended.stderr
    assert secret.well_formed(made)
    assert made not in ended.stdout + ended.stderr
    assert secret.format_digest(secret.digest(made)) in ended.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert [it["kind"] for it in yaml.safe_load_all(ended.stdout)] == ["Role", "RoleBinding", "TokenClient"]


def test_client_for_vault_alone_has_no_secret() -> None:
    """With --no-secret nobody can call the broker as this client."""
    ended = command(*RENDER, "--no-secret", "--vault")
    client = list(yaml.safe_load_all(ended.stdout))[-1]

    assert ended.code == 0, ended.stderr
    assert "authentication" not in client["spec"]


def test_tokens_may_be_shared() -> None:
    """--reuse says for how long."""
    ended = command(*RENDER, "--no-secret", "--vault", "--reuse", "30s")
    client = list(yaml.safe_load_all(ended.stdout))[-1]

    assert ended.code == 0, ended.stderr
    assert client["spec"]["grants"][0]["reuse"] == "30s"


def test_broker_may_live_elsewhere() -> None:
    """--broker names the account that the mint Role goes to."""
    ended = command(*RENDER, "--no-secret", "--vault", "--broker", "security/tokens")
    binding = list(yaml.safe_load_all(ended.stdout))[1]

    assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "security", "name": "tokens"}]


def test_file_that_exists_is_never_touched(tmp_path: Path) -> None:
    """A secret file of another client is not overwritten, nor removed."""
    file = tmp_path / "secret"
    file.write_text("another's")
    ended = command(*RENDER, "--secret-file", str(file))

    assert ended.code == 2
    assert "is not overwritten" in ended.stderr
    assert file.read_text() == "another's"


def test_secret_file_goes_away_when_nothing_was_made(tmp_path: Path) -> None:
    """A refused client leaves no secret behind that opens nothing."""
    file = tmp_path / "secret"
    ended = command(*RENDER, "--secret-file", str(file), "--ttl", "1m")

    assert ended.code == 2
    assert not file.exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 2, "--secret-file"),
        (("--no-secret", "--secret-file", "x", "--vault"), 2, "contradict"),
        (("--no-secret", "--vault", "--rule", "get secrets"), 1, "would be strong"),
        (("--no-secret", "--vault", "--cluster-wide-rule", "list /metrics"), 2, "URLs have the verbs"),
        (("--no-secret", "--vault", "--reuse", "5m1s"), 2, "reuse is at most 5m"),
        (("--no-secret", "--vault", "--reuse", "1s", "--revocation", "Token"), 2, "is never shared"),
    ],
)
def test_what_would_be_refused_is_not_printed(options: tuple[str, ...], code: int, words: str) -> None:
    """One sentence on stderr, nothing on stdout."""
    ended = command(*RENDER, *options)

    assert (ended.code, ended.stdout) == (code, "")
    assert words in ended.stderr


def test_a_strong_account_that_is_meant_is_printed_with_warnings() -> None:
    """They say what it can do, and that the broker's operator has a word in it."""
    ended = command(*RENDER, "--no-secret", "--vault", "--rule", "create pods/exec", "--allow-strong")

    assert ended.code == 0
    assert "warning: the account web is strong: it may create pods/exec, which runs commands" in ended.stderr
    assert "unless its operator allows them in the namespace shop" in ended.stderr
    assert next(it["kind"] for it in yaml.safe_load_all(ended.stdout)) == "Role"


@pytest.mark.parametrize(
    ("told", "written"),
    [
        ((), None),
        (("--rate", "600"), {"perMinute": 600}),
        (("--rate", "600", "--burst", "100"), {"perMinute": 600, "burst": 100}),
    ],
    ids=str,
)
def test_rate_is_written_as_it_was_told(told: tuple[str, ...], written: dict[str, int] | None) -> None:
    """Nothing of it where nobody said anything: then the operator's holds."""
    ended = command(*RENDER, "--no-secret", "--vault", *told)
    client = list(yaml.safe_load_all(ended.stdout))[-1]

    assert client["spec"].get("rate") == written


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("--burst", "100"), "say --rate, too"),
        (("--rate", "0"), "rate.perMinute"),
        (("--rate", "100001"), "rate.perMinute"),
        (("--rate", "60", "--burst", "0"), "rate.burst"),
    ],
    ids=str,
)
def test_rate_that_cannot_be_meant_is_refused(told: tuple[str, ...], words: str) -> None:
    """Before anything is made."""
    ended = command(*RENDER, "--no-secret", "--vault", *told)

    assert ended.code != 0
    assert words in ended.stderr
    assert ended.stdout == ""
