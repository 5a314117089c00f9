"""``tokenbroker client rotate-secret``."""

from pathlib import Path
from typing import Annotated

import typer

from broker.cli import options as opt
from broker.cli.client.handover import new_secret
from broker.cli.client.rotation import PLACE, digests, with_new_secret, without_old_secret
from broker.cli.cluster import Access, connect
from broker.cli.errors import errors_shown, usage
from broker.cli.finding import find_client
from broker.cli.run import run


def rotate_secret(
    name: opt.Client,
    *,
    namespace: opt.Namespace = None,
    drop_oldest: Annotated[
        bool, typer.Option("--drop-oldest", help="With two secrets there already, give the oldest up.")
    ] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Make none; end the older of two secrets.")] = False,
    secret_file: opt.SecretFile = None,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = None,
) -> None:
    """Replace a client's secret: a new one is added, and when it is in use, --finish ends the old one."""
    with errors_shown():
        if finish and (drop_oldest or secret_file):
            raise usage("--finish makes no new secret: leave --drop-oldest and --secret-file out.")
    access = Access(kubeconfig, context)
    run(_finish(access, namespace, name) if finish else _add(access, namespace, name, drop_oldest, secret_file))


async def _add(access: Access, namespace: str | None, name: str, drop_oldest: bool, file: Path | None) -> None:
    with new_secret(file) as handover:
        async with connect(access) as cluster:
            found = await find_client(cluster, namespace, name)
            wanted = with_new_secret(found, handover.digest, drop_oldest=drop_oldest)
            changed = await cluster.replace(found, PLACE, wanted)
    handover.show()
    typer.echo(f"its digest, for a TokenClient that is kept in git: {handover.digest}", err=True)
    if len(digests(changed)) > 1:
        option = f"-n {found['metadata']['namespace']} --finish"
        typer.echo(
            "both secrets work now; give the new one to the client, then run: "
            f"tokenbroker client rotate-secret {name} {option}",
            err=True,
        )


async def _finish(access: Access, namespace: str | None, name: str) -> None:
    async with connect(access) as cluster:
        found = await find_client(cluster, namespace, name)
        changed = await cluster.replace(found, PLACE, without_old_secret(found))
    typer.echo(f"only the newest secret works now: {digests(changed)[0][:19]} (digest)", err=True)
