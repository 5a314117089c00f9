"""``tokenbroker client``: clients in the cluster, with the user's own rights."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from broker.cli import options as opt
from broker.cli.client.add import add
from broker.cli.client.config import config
from broker.cli.client.removing import belongings, remove_all
from broker.cli.client.render import render
from broker.cli.client.revoke_all import revoke_all
from broker.cli.client.rotate import rotate_secret
from broker.cli.client.suspending import resume, suspend
from broker.cli.client.views import COLUMNS, details, row
from broker.cli.cluster import Access, connect
from broker.cli.finding import find_client, identify, tidy, unknown
from broker.cli.manifests import title
from broker.cli.output import Output, printable, show, table
from broker.cli.resources import Kind
from broker.cli.run import run


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Register clients and look after them, with your own kubeconfig.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command()(add)
    group.command()(render)
    group.command("list")(list_clients)
    group.command("show")(show_client)
    group.command()(config)
    group.command()(rotate_secret)
    group.command()(revoke_all)
    group.command()(suspend)
    group.command()(resume)
    group.command()(remove)
    app.add_typer(group, name="client")


def list_clients(
    *,
    namespace: opt.Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Those of the whole cluster.")] = False,
    output: opt.OutputFormat = Output.TEXT,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """List clients and how they are."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            where = None if everywhere else namespace or cluster.namespace
            found = await cluster.list(Kind.TOKEN_CLIENT, where)
        if output is not Output.TEXT:
            return show({"apiVersion": "v1", "kind": "List", "items": [tidy(it) for it in found]}, output)
        if not found:
            return typer.echo("no clients found", err=True)
        now = datetime.now(UTC)
        return table(COLUMNS, [row(it, now) for it in found])

    run(work())


def show_client(
    name: opt.Client,
    *,
    namespace: opt.Namespace = None,
    output: opt.OutputFormat = Output.TEXT,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Show a client: its grants, its copies in Vault, and what is wrong with it."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            found = await find_client(cluster, namespace, name)
        if output is not Output.TEXT:
            return show(tidy(found), output)
        return typer.echo("\n".join(printable(line) for line in details(found, datetime.now(UTC))))

    run(work())


def remove(
    name: opt.Client,
    *,
    namespace: opt.Namespace = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Remove a client and the objects that were made for it; its tokens die. Other objects stay."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            client = identify(cluster, namespace, name)
            found = await belongings(cluster, client)
            if not found:
                raise unknown(client)
            typer.echo("to be deleted:", err=True)
            for manifest in found:
                typer.echo(f"  {title(manifest)}", err=True)
            if not yes:
                typer.confirm("Delete them?", abort=True, err=True)
            for manifest in await remove_all(cluster, found):
                typer.echo(f"deleted: {title(manifest)}", err=True)

    run(work())
