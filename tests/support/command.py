"""The command line, run in this process as a person would run it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from broker.cli.app import build


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def command(*arguments: str, env: Mapping[str, str | None] | None = None, stdin: str = "") -> Ended:
    """Run ``tokenbroker`` with these arguments; an exception that it does not translate is raised."""
    clean: dict[str, str | None] = dict.fromkeys(_ENVIRONMENT)
    result = CliRunner().invoke(build(), list(arguments), input=stdin, env={**clean, **(env or {})})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


async def command_with(
    kubeconfig: Path, *arguments: str, stdin: str = "", env: Mapping[str, str | None] | None = None
) -> Ended:
    """Run ``tokenbroker`` with a kubeconfig, in a thread of its own: it has an event loop of its own."""
    whole = {"KUBECONFIG": str(kubeconfig), **(env or {})}
    return await asyncio.to_thread(command, *arguments, env=whole, stdin=stdin)


_ENVIRONMENT = (
    "KUBECONFIG",
    "TOKENBROKER_URL",
    "TOKENBROKER_CLIENT",
    "TOKENBROKER_SECRET",
    "TOKENBROKER_SECRET_FILE",
    "VAULT_ADDR",
    "VAULT_TOKEN",
    "VAULT_CACERT",
)
