"""What belongs to a client, and its removal."""

from broker.cli.cluster import Cluster
from broker.cli.manifests import Manifest, labels
from broker.cli.resources import Kind
from broker.model.client import ClientId

_LABELLED = (Kind.ROLE_BINDING, Kind.ROLE, Kind.SERVICE_ACCOUNT)


async def belongings(cluster: Cluster, client: ClientId) -> list[Manifest]:
    """Return the TokenClient and the objects labelled as made for it, in the order of their removal.

    The TokenClient comes first: with it, issuing ends and its tokens die. Raises CommandError.
    """
    found = await cluster.get(Kind.TOKEN_CLIENT, client.namespace, client.name)
    labelled = [await cluster.list(kind, client.namespace, labels(client.name)) for kind in _LABELLED]
    return [*([found] if found else []), *(manifest for some in labelled for manifest in some)]


async def remove_all(cluster: Cluster, manifests: list[Manifest]) -> list[Manifest]:
    """Delete exactly these objects and return those that were still there. Raises CommandError."""
    return [manifest for manifest in manifests if await cluster.delete(manifest)]
