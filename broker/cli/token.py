"""``tokenbroker token``: a token from a broker, and what a token says."""

import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.credentials import Given, find
from broker.cli.errors import errors_shown, usage
from broker.cli.jwt import decode, describe
from broker.cli.output import Output, printable, show
from broker.cli.run import run
from broker.model.sensitive import Sensitive

MAX_TOKEN_CHARACTERS = 65536


class TokenOutput(StrEnum):
    """What ``token get -o`` takes."""

    TOKEN = "token"  # noqa: S105 - a format, not a secret
    JSON = "json"


class InspectOutput(StrEnum):
    """What ``token inspect -o`` takes."""

    TEXT = "text"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Get a token from a broker, or read what a token says.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("get")(get)
    group.command("inspect")(inspect)
    app.add_typer(group, name="token")


def get(
    *,
    url: Annotated[str | None, typer.Option(envvar="TOKENBROKER_URL", help="The broker.")] = None,
    client: Annotated[
        str | None, typer.Option(envvar="TOKENBROKER_CLIENT", metavar="NAMESPACE/NAME", help="Who you are.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TOKENBROKER_SECRET_FILE",
            help="The file with the client's secret; TOKENBROKER_SECRET may hold the secret itself instead.",
        ),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(help="A JSON or YAML file with url, client, secret_file or secret, and ca_file."),
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Trust the broker's certificate by this CA only.")] = None,
    grant: Annotated[str | None, typer.Option(help="Which grant; may be left out where there is one.")] = None,
    ttl: Annotated[str | None, typer.Option(help="How long it shall live, such as 30m.")] = None,
    audience: Annotated[str | None, typer.Option(help="Whom it is for.")] = None,
    output: Annotated[TokenOutput, typer.Option("--output", "-o", help="The token alone, or all.")] = TokenOutput.TOKEN,
) -> None:
    """Get a token from a broker and print it."""
    from broker.cli.broker_api import Ask, get_token  # noqa: PLC0415 - aiohttp takes a quarter of a second to load

    async def work() -> None:
        secret = os.environ.get("TOKENBROKER_SECRET")
        given = Given(url, client, secret_file, Sensitive(secret) if secret else None, ca_file)
        answer = await get_token(find(given, credentials), Ask(grant, ttl, audience))
        if output is TokenOutput.JSON:
            return show(answer, Output.JSON)
        return typer.echo(answer["token"])

    run(work())


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
