"""Every command that is told a client takes ``NAMESPACE/NAME`` as well as ``-n NAMESPACE NAME``."""

from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from broker.cli.app import build
from broker.cli.errors import CommandError
from broker.cli.finding import named
from tests.support.command import command

GROUP = get_command(build("client")).commands["client"].commands  # type: ignore[attr-defined]
NEEDED = {
    "add": ("--service-account", "web"),
    "render": ("--service-account", "web", "--no-secret", "--vault"),
    "config": ("--for", "prometheus", "--broker-url", "https://broker.example"),
}
COMMANDS = [name for name, it in GROUP.items() if any(one.param_type_name == "argument" for one in it.params)]


@pytest.mark.parametrize(
    ("name", "namespace", "meant"),
    [
        ("web", None, (None, "web")),
        ("web", "shop", ("shop", "web")),
        ("shop/web", None, ("shop", "web")),
        ("shop/web", "shop", ("shop", "web")),
    ],
)
def test_both_forms_mean_the_same(name: str, namespace: str | None, meant: tuple[str | None, str]) -> None:
    """Where nothing names the namespace, the kubeconfig's counts."""
    assert named(name, namespace) == meant


@pytest.mark.parametrize("name", ["a/b/c", "/web", "shop/", "/"])
def test_what_is_neither_form_is_refused(name: str) -> None:
    """It must not become a part of a path."""
    with pytest.raises(CommandError, match="is not NAME or NAMESPACE/NAME"):
        named(name, None)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_reads_the_namespace_from_the_name(name: str, tmp_path: Path) -> None:
    """It sees that the two contradict each other, and asks no cluster."""
    config = {
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "it", "user": {"token": "t"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    words = ("client", name, "other/web", "-n", "shop", *NEEDED.get(name, ()))
    ended = command(*words, "--kubeconfig", str(tmp_path / "config"))

    assert (ended.code, ended.stdout) == (2, "")
    assert "other/web is not in the namespace shop" in ended.stderr


def test_the_commands_are_all_that_name_a_client() -> None:
    """So that the test above looks at each."""
    assert set(GROUP) - set(COMMANDS) == {"list"}
