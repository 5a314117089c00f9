"""Looks one client up."""

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, usage
from broker.cli.manifests import Manifest
from broker.cli.resources import Kind
from broker.model.client import ClientId


async def find_client(cluster: Cluster, namespace: str | None, name: str) -> Manifest:
    """Return a TokenClient, by default of the namespace of the kubeconfig's context. Raises CommandError.

    ``name`` may be the whole id, as callers of the broker write it.
    """
    inside, slash, rest = name.rpartition("/")
    if slash and namespace not in {None, inside}:
        raise usage(f"{name} is not in the namespace {namespace}: leave one of the two out.")
    client = ClientId(inside or namespace or cluster.namespace, rest)
    found = await cluster.get(Kind.TOKEN_CLIENT, client.namespace, client.name)
    if found is None:
        raise unknown(client)
    return found


def unknown(client: ClientId) -> CommandError:
    """Return the error for a client that is not there."""
    return CommandError(f"there is no client {client}: `tokenbroker client list -A` shows them all.")


def tidy(found: Manifest) -> Manifest:
    """Return an object without the record of who wrote which field."""
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    return {**found, "metadata": metadata}
