"""``client add`` where it needs no cluster: refusing what cannot be meant."""

from pathlib import Path

import pytest

from tests.support.command import command

ADD = ("client", "add", "web", "-n", "shop", "--service-account", "web")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--no-secret", "--secret-file", "x", "--vault"), "contradict"),
        (("--vault-ttl", "12h"), "add --vault"),
        (("--rule", "get /metrics"), "use --cluster-wide-rule"),
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
