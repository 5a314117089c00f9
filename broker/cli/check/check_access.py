"""``tokenbroker check access``."""

from enum import StrEnum
from typing import Annotated

import typer

from broker.cli import options as opt
from broker.cli.check import rbac_facts
from broker.cli.check.access_view import TABLE, rows, table_row, to_csv
from broker.cli.check.check_rbac import InNamespace
from broker.cli.cluster import Access, connect
from broker.cli.output import table
from broker.cli.resources import Kind
from broker.cli.run import run


class AccessOutput(StrEnum):
    """What ``check access -o`` takes."""

    TEXT = "text"
    CSV = "csv"


def check_access(
    *,
    namespace: InNamespace = None,
    output: Annotated[
        AccessOutput, typer.Option("--output", "-o", help="A table, or CSV with every single rule.")
    ] = AccessOutput.TEXT,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """List who outside the cluster may do what in it: for auditors."""

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            clients = await cluster.list(Kind.TOKEN_CLIENT, namespace)
            found = list(rows(clients, await rbac_facts.read(cluster, namespace)))
        if namespace is not None:
            typer.echo("what accounts may do in other namespaces and in the whole cluster was not looked at", err=True)
        if output is AccessOutput.CSV:
            return typer.echo(to_csv(found), nl=False)
        return table(TABLE, [table_row(it) for it in found])

    run(work())
