"""``tokenbroker token``: a token from a broker, and what a token says."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from broker.cli.errors import errors_shown
from broker.cli.output import Output, printable, show
from broker.cli.token.get import get
from broker.cli.token.jwt import decode, describe
from broker.cli.token.token_file import read_token
from broker.cli.token.token_revoke import revoke


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
        token = decode(read_token(file).reveal())
        if output is InspectOutput.JSON:
            return show(token.document(), Output.JSON)
        return typer.echo("\n".join(printable(line) for line in describe(token, datetime.now(UTC))))
