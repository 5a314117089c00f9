"""Looks one client up."""

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError
from broker.cli.manifests import Manifest
from broker.cli.resources import Kind
from broker.model.client import ClientId


async def find_client(cluster: Cluster, namespace: str | None, name: str) -> Manifest:
    """Return a TokenClient, by default of the namespace of the kubeconfig's context. Raises CommandError."""
    client = ClientId(namespace or cluster.namespace, name)
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
