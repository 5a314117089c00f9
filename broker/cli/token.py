"""``tokenbroker token``: a token from a broker, and what a token says."""

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.errors import errors_shown, usage
from broker.cli.get import get
from broker.cli.jwt import decode, describe
from broker.cli.output import Output, printable, show
from broker.cli.token_revoke import revoke

MAX_TOKEN_CHARACTERS = 65536


class InspectOutput(StrEnum):
    """What ``token inspect -o`` takes."""

    TEXT = "text"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Get a token from a broker, end it, or read what it says.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("get")(get)
    group.command("revoke")(revoke)
    group.command("inspect")(inspect)
    app.add_typer(group, name="token")


def inspect(
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="The file with the token; - is stdin.")] = "-",
    output: Annotated[InspectOutput, typer.Option("--output", "-o", help="For people or for programs.")] = (
        InspectOutput.TEXT
    ),
) -> None:
    """Show what a token says: whose it is, what for, until when. Its signature is not verified."""
    with errors_shown():
        token = decode(_read(file).strip())
        if output is InspectOutput.JSON:
            return show(token.document(), Output.JSON)
        return typer.echo("\n".join(printable(line) for line in describe(token, datetime.now(UTC))))


def _read(file: str) -> str:
    if file.startswith("eyJ"):
        raise usage("give the token on stdin or in a file: process lists and histories show arguments.")
    try:
        if file == "-":
            return sys.stdin.read(MAX_TOKEN_CHARACTERS)
        with Path(file).open(encoding="utf-8") as opened:
            return opened.read(MAX_TOKEN_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        raise usage(f"{file} cannot be read as a file with a token.") from None
