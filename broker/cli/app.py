"""Joins the commands, each from a module of its own that is loaded when it is wanted."""

from importlib import import_module, metadata
from typing import Annotated

import typer

COMMANDS = {
    "serve": "serve",
    "client": "client.command",
    "token": "token.command",
    "rules": "rules",
    "check": "check.command",
    "doctor": "doctor",
}
"""The first words; each has a module of this package with a function ``register(app)``."""


def build(first_word: str = "") -> typer.Typer:
    """Return the application with the command of that name, or with all of them, for the help.

    A server started with ``serve`` does not pay for the memory and the start of the other commands.
    """
    app = typer.Typer(
        help="Short-lived Kubernetes tokens for clients outside the cluster.",
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help needs no rich, which costs as much as all the rest of the start
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in [first_word] if first_word in COMMANDS else COMMANDS:
        import_module(f"broker.cli.{COMMANDS[name]}").register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tokenbroker {metadata.version('tokenbroker')}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Short-lived Kubernetes tokens for clients outside the cluster."""
