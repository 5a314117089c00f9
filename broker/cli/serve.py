"""``tokenbroker serve``."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", show_default=True)] = Path(
        "/etc/tokenbroker/config.yaml"
    ),
) -> None:
    """Run the broker until it is told to stop."""
    from broker.server import run  # noqa: PLC0415 - the server is loaded to serve, not to print the help

    raise typer.Exit(run(config))
