"""Says which client is meant, and looks it up."""

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, usage
from broker.cli.manifests import Manifest
from broker.cli.resources import Kind
from broker.model.client import ClientId


def named(name: str, namespace: str | None) -> tuple[str | None, str]:
    """Return namespace and name of a client: the name may be the whole id, as callers of the broker write it.

    The namespace is None where neither says it. Raises CommandError(usage) where both do, and differ.
    """
    inside, slash, rest = name.partition("/")
    if not slash:
        return namespace, name
    if not inside or not rest or "/" in rest:
        raise usage(f"{name!r} is not NAME or NAMESPACE/NAME.")
    if namespace not in {None, inside}:
        raise usage(f"{name} is not in the namespace {namespace}: leave one of the two out.")
    return inside, rest


def identify(cluster: Cluster, namespace: str | None, name: str) -> ClientId:
    """Return a client's id, by default of the namespace of the kubeconfig's context. Raises CommandError as above."""
    inside, rest = named(name, namespace)
    return ClientId(inside or cluster.namespace, rest)


async def find_client(cluster: Cluster, namespace: str | None, name: str) -> Manifest:
    """Return a TokenClient, named as for :func:`identify`. Raises CommandError."""
    client = identify(cluster, namespace, name)
    found = await cluster.get(Kind.TOKEN_CLIENT, client.namespace, client.name)
    if found is None:
        raise unknown(client)
    return found


def addressed(found: Manifest) -> str:
    """Return how commands name an object: ``-n NAMESPACE NAME``."""
    return f"-n {found['metadata']['namespace']} {found['metadata']['name']}"


def unknown(client: ClientId) -> CommandError:
    """Return the error for a client that is not there."""
    return CommandError(f"there is no client {client}: `tokenbroker client list -A` shows them all.")


def tidy(found: Manifest) -> Manifest:
    """Return an object without the record of who wrote which field."""
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    return {**found, "metadata": metadata}
