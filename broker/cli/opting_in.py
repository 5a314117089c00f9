"""The label by which a namespace's owner lets the broker mint there."""

import typer

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, ExitCode
from broker.cli.resources import Kind

LABEL = "tokenbroker.dev/clients"
ENABLED = "enabled"


def line(namespace: str) -> str:
    """Return the command that opts a namespace in."""
    return f"kubectl label namespace {namespace} {LABEL}={ENABLED}"


async def opt_namespace_in(cluster: Cluster, namespace: str, *, wanted: bool) -> None:
    """Label the namespace, if that is wanted, or say what is missing. Raises CommandError where it is refused."""
    try:
        found = await cluster.get(Kind.NAMESPACE, None, namespace)
    except CommandError as error:
        if error.code is not ExitCode.REFUSED:
            raise
        return _warn(f"you may not see whether the broker may mint in the namespace {namespace}; if not,", namespace)
    if found is None or found["metadata"].get("labels", {}).get(LABEL) == ENABLED:
        return None
    if not wanted:
        return _warn(f"the broker mints nothing in the namespace {namespace} yet: add --opt-in, or", namespace)
    try:
        await cluster.patch(found, {"metadata": {"labels": {LABEL: ENABLED}}})
    except CommandError as error:
        if error.code is not ExitCode.REFUSED:
            raise
        raise CommandError(f"you may not opt the namespace in; ask a cluster admin for: {line(namespace)}") from None
    return typer.echo(f"opted in: Namespace {namespace}", err=True)


def _warn(what: str, namespace: str) -> None:
    typer.echo(f"warning: {what} ask a cluster admin to run: {line(namespace)}", err=True)
