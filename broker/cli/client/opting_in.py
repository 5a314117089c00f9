"""The labels by which a namespace's owner lets the broker mint there."""

import typer

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, RefusedError
from broker.cli.manifests import Manifest, NewClient
from broker.cli.resources import Kind
from broker.model.client import Revocation
from broker.model.limits import OPT_IN, OPTED_IN, UNBOUND, UNBOUND_ALLOWED

MINTS = (OPT_IN, OPTED_IN)
MINTS_UNBOUND = (UNBOUND, UNBOUND_ALLOWED)
"""Tokens that nothing can end (``revocation: None``)."""


def line(namespace: str, label: tuple[str, str] = MINTS) -> str:
    """Return the command that opts a namespace in."""
    return f"kubectl label namespace {namespace} {'='.join(label)}"


async def opt_namespace_in(cluster: Cluster, new: NewClient, *, wanted: bool) -> None:
    """Label the client's namespace, if that is wanted, or say what is missing. Raises CommandError."""
    namespace = new.id.namespace
    try:
        found = await cluster.get(Kind.NAMESPACE, None, namespace)
    except RefusedError:
        return _warn(f"you may not see whether the broker may mint in the namespace {namespace}; if not,", namespace)
    if found is None:
        return None
    if new.grant.revocation is Revocation.NONE and not has(found, MINTS_UNBOUND):
        what = f"the broker mints no token that cannot be revoked in the namespace {namespace}:"
        _warn(what, namespace, MINTS_UNBOUND)
    if has(found, MINTS):
        return None
    if wanted:
        return await _label(cluster, found)
    return _warn(f"the broker mints nothing in the namespace {namespace} yet: add --opt-in, or", namespace)


def has(space: Manifest, label: tuple[str, str]) -> bool:
    """Tell whether a Namespace carries a label."""
    return label in (space["metadata"].get("labels") or {}).items()


async def _label(cluster: Cluster, space: Manifest) -> None:
    namespace = space["metadata"]["name"]
    try:
        await cluster.patch(space, {"metadata": {"labels": dict([MINTS])}})
    except RefusedError:
        raise CommandError(f"you may not opt the namespace in; ask a cluster admin for: {line(namespace)}") from None
    typer.echo(f"opted in: Namespace {namespace}", err=True)


def _warn(what: str, namespace: str, label: tuple[str, str] = MINTS) -> None:
    typer.echo(f"warning: {what} ask a cluster admin to run: {line(namespace, label)}", err=True)
