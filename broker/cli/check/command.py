"""``tokenbroker check``: what registration would say, for pull requests; other checks are its subcommands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.cli import options as opt
from broker.cli.check.check_access import check_access
from broker.cli.check.check_rbac import check_rbac
from broker.cli.check.gathering import gathered, passed_over, without_clients
from broker.cli.check.manifest_files import read_files
from broker.cli.check.pool import Pool, in_files, with_cluster
from broker.cli.check.problem_lines import Problem
from broker.cli.check.reviewing import Settings, review
from broker.cli.check.trying import try_out
from broker.cli.cluster import Access, connect
from broker.cli.errors import ExitCode, errors_shown, usage
from broker.cli.manifests import BrokerAccount
from broker.cli.output import Output, printable, show
from broker.cli.run import run

Files = Annotated[
    list[Path] | None,
    typer.Option("--file", "-f", metavar="FILE|DIR", help="Manifests, a folder of them, or - for stdin. Repeatable."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no cluster: look at what the files say alone.")]


def register(app: typer.Typer) -> None:
    """Add the command and its subcommands."""
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True)(check)
    group.command("rbac")(check_rbac)
    group.command("access")(check_access)
    app.add_typer(group, name="check")


def check(
    typed: typer.Context,
    *,
    file: Files = None,
    offline: Offline = False,
    namespace: opt.Namespace = None,
    allow_strong: opt.AllowStrong = False,
    broker: opt.Broker = "tokenbroker/tokenbroker",
    output: opt.OutputFormat = Output.TEXT,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Check manifests of clients as registration would, and make nothing: for pull requests.

    Ends with 1 where something would be refused or would not work; warnings alone end with 0.
    """
    if typed.invoked_subcommand:
        return
    with errors_shown():
        if not file:
            raise usage("name the manifests with -f FILE, or one of the other checks: see --help.")
        settings = Settings(BrokerAccount.parse(broker), allow_strong=allow_strong)
        manifests, unreadable = read_files(file, namespace)
    pool = in_files(manifests)
    if ignored := passed_over(manifests):
        typer.echo(f"not looked at: {ignored}", err=True)
    problems = [*(unreadable or without_clients(manifests, ", ".join(map(str, file)))), *gathered(manifests)]
    if offline:
        problems += review(pool, settings)
    else:
        run(_online(Access(kubeconfig, context), pool, settings, problems))
    _report(problems, output)


async def _online(access: Access, pool: Pool, settings: Settings, problems: list[Problem]) -> None:
    async with connect(access) as cluster:
        known = await with_cluster(pool, cluster)
        problems += review(known, settings)
        problems += [problem for found in known.clients for problem in await try_out(cluster, known, found)]


def _report(problems: Sequence[Problem], output: Output) -> None:
    errors = [problem for problem in problems if problem.is_error]
    if output is Output.TEXT:
        for problem in problems:
            typer.echo(printable(str(problem)))
        typer.echo(f"{len(errors)} errors, {len(problems) - len(errors)} warnings", err=True)
    else:
        show([_document(problem) for problem in problems], output)
    if errors:
        raise typer.Exit(ExitCode.REFUSED)


def _document(problem: Problem) -> dict[str, Any]:
    return {
        "severity": "error" if problem.is_error else "warning",
        "file": problem.file,
        "object": problem.thing,
        "what": problem.what,
        "mend": problem.mend,
    }
