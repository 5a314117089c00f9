"""``tokenbroker doctor``: why a token is refused, why a client gets none, and whether the broker is set up right."""

import typer

from broker.cli.doctor.command import doctor


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)
