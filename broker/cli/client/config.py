"""``tokenbroker client config``."""

from typing import Annotated

import typer

from broker.cli import options as opt
from broker.cli.client.configurations import Places, Tool, configuration
from broker.cli.cluster import Access, connect
from broker.cli.errors import errors_shown
from broker.cli.finding import find_client
from broker.cli.run import run
from broker.cli.token.credentials import checked_url


def config(
    name: opt.Client,
    *,
    tool: Annotated[Tool, typer.Option("--for", help="Which tool it is for.")],
    broker_url: Annotated[
        str, typer.Option(metavar="URL", help="The broker, as the tool reaches it: its listen.public_url.")
    ],
    namespace: opt.Namespace = None,
    grant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which grant; may be left out where there is one.")
    ] = None,
    api_server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The API server, as the tool reaches it; the kubeconfig's where left out."),
    ] = None,
    vault_url: Annotated[
        str, typer.Option(metavar="URL", help="Vault or OpenBao, for tools that read from it.", show_default=False)
    ] = "",
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Print a tool's configuration for a client, ready to use. It holds no secret."""
    with errors_shown():
        broker = checked_url(broker_url, "the broker's URL")
        vault = checked_url(vault_url, "Vault's URL") if vault_url else ""
        server = checked_url(api_server, "the API server's URL") if api_server else None

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            found = await find_client(cluster, namespace, name)
        places = Places(broker, server or cluster.server, vault)
        typer.echo(configuration(tool, found, grant, places), nl=False)

    run(work())
