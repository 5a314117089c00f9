"""The command line's reference and its start."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from broker.cli.app import build
from broker.cli.errors import ExitCode

REFERENCE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def _commands(command: Any, words: str = "tokenbroker") -> Iterator[tuple[str, Any]]:
    """Yield all commands with their full names; ``command`` is what typer makes."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{words} {name}")
    if not hasattr(command, "commands") or command.invoke_without_command:
        yield words, command


COMMANDS = dict(_commands(get_command(build())))


def _section(name: str) -> str:
    """Return what the reference says under the command's heading."""
    return REFERENCE.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]


def _spellings(parameter: Any) -> list[str]:
    """Return the words that the reference must have for an option or argument."""
    options = [word for word in parameter.opts if word.startswith("-")]
    variables = [parameter.envvar] if parameter.envvar else []
    defaults = [parameter.default] if isinstance(parameter.default, str) and parameter.default else []
    return [*options, *variables, *defaults]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    """Each command has a section, with each of its options, environment variables and defaults in code type."""
    words = set(re.findall(r"[^`\s,]+", " ".join(re.findall(r"`([^`]+)`", _section(name)))))
    wanted = [word for parameter in COMMANDS[name].params for word in _spellings(parameter)]

    assert _section(name), f"docs/cli.md has no section for {name}"
    assert [word for word in wanted if word not in words] == []


def test_every_section_is_a_command() -> None:
    """What is removed from the command line is removed from its reference, and no option is made up."""
    sections = re.findall(r"^## `(.+)`$", REFERENCE, re.MULTILINE)

    assert set(sections) == set(COMMANDS)
    for name in sections:
        known = {word for parameter in COMMANDS[name].params for word in parameter.opts}
        rows = re.findall(r"^\| `(-[^`]+)`", _section(name), re.MULTILINE)
        assert {word for row in rows for word in re.findall(r"-[-\w]+", row)} <= known


def test_every_exit_code_is_documented() -> None:
    """Scripts can rely on what the table says."""
    for code in ExitCode:
        assert f"| {code.value} |" in REFERENCE


def test_serve_loads_none_of_the_other_commands() -> None:
    """A server does not pay 100 MB for what only people's commands need."""
    code = (
        "import sys; from broker.cli.app import build; build('serve');"
        "print([name for name in ('kubernetes_asyncio', 'rich', 'aiohttp', 'broker.cli.client', 'broker.cli.token')"
        " if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"


def test_help_loads_no_client_libraries() -> None:
    """The help is there at once."""
    code = (
        "import sys; from broker.cli.app import build; build();"
        "print([name for name in ('kubernetes_asyncio', 'rich', 'aiohttp') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"
