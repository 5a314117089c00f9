"""``tokenbroker check``: what is registered, compared with what the cluster allows."""

import typer

from broker.cli.check_access import check_access
from broker.cli.check_rbac import check_rbac


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Compare what is registered with what the cluster allows, with your own kubeconfig.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("rbac")(check_rbac)
    group.command("access")(check_access)
    app.add_typer(group, name="check")
