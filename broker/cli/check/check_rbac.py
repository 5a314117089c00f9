"""``tokenbroker check rbac``."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from broker.cli import options as opt
from broker.cli import release
from broker.cli.check import rbac_facts
from broker.cli.check.minting import Surplus, missing, needs, shipped_rbac, too_much
from broker.cli.cluster import Access, connect
from broker.cli.errors import ExitCode
from broker.cli.manifests import BrokerAccount, Manifest
from broker.cli.output import printable, to_yaml
from broker.cli.resources import Kind
from broker.cli.run import run


class RbacOutput(StrEnum):
    """What ``check rbac -o`` takes."""

    TEXT = "text"
    YAML = "yaml"


InNamespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="This namespace only; the whole cluster where left out."),
]


def check_rbac(
    *,
    namespace: InNamespace = None,
    broker: opt.Broker = "tokenbroker/tokenbroker",
    output: Annotated[
        RbacOutput, typer.Option("--output", "-o", help="text says everything; yaml is what is missing, to apply.")
    ] = RbacOutput.TEXT,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Compare what registered clients need the broker to be allowed to do with what it may do."""
    account = BrokerAccount.parse(broker)

    async def work() -> None:
        async with connect(Access(kubeconfig, context)) as cluster:
            wanted = needs(await cluster.list(Kind.TOKEN_CLIENT, namespace))
            found = await rbac_facts.read(cluster, namespace)
        shipped = shipped_rbac(release.manifests(), account)
        lacking, surplus = missing(wanted, found, account), list(too_much(wanted, found, account, shipped))
        _report(lacking, surplus, len(wanted), output)
        if lacking or surplus:
            raise typer.Exit(ExitCode.REFUSED)

    run(work())


def _report(lacking: Sequence[Manifest], surplus: Sequence[Surplus], clients: int, output: RbacOutput) -> None:
    if output is RbacOutput.YAML and lacking:
        typer.echo(to_yaml(lacking), nl=False)
    if output is RbacOutput.TEXT:
        for it in lacking:
            metadata = it["metadata"]
            typer.echo(printable(f"missing: {it['kind']} {metadata['namespace']}/{metadata['name']}"))
    for each in surplus:
        _say_surplus(each, on_stderr=output is RbacOutput.YAML)
    if not lacking and not surplus:
        typer.echo(f"the broker may mint for all {clients} clients, and nothing else", err=output is RbacOutput.YAML)
    if lacking and output is RbacOutput.TEXT:
        typer.echo("`tokenbroker check rbac -o yaml | kubectl apply -f -` makes what is missing", err=True)


def _say_surplus(surplus: Surplus, *, on_stderr: bool) -> None:
    binding = surplus.binding
    typer.echo(printable(f"too much: {surplus.what} {binding.where}, by {binding.kind} {binding.name}"), err=on_stderr)
    typer.echo(f"  {surplus.mend}", err=on_stderr)
