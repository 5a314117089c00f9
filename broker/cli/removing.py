"""What belongs to a client, and its removal."""

import typer

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, ExitCode
from broker.cli.manifests import Manifest, labels, wide_labels
from broker.cli.resources import Kind
from broker.model.client import ClientId

_LABELLED = (Kind.ROLE_BINDING, Kind.ROLE, Kind.SERVICE_ACCOUNT)
_WIDE = (Kind.CLUSTER_ROLE_BINDING, Kind.CLUSTER_ROLE)


async def belongings(cluster: Cluster, client: ClientId) -> list[Manifest]:
    """Return the TokenClient and the objects labelled as made for it, in the order of their removal.

    The TokenClient comes first: with it, issuing ends and its tokens die. Raises CommandError.
    """
    found = await cluster.get(Kind.TOKEN_CLIENT, client.namespace, client.name)
    labelled = [await cluster.list(kind, client.namespace, labels(client.name)) for kind in _LABELLED]
    wide = await _wide_belongings(cluster, client)
    return [*([found] if found else []), *wide, *(manifest for some in labelled for manifest in some)]


async def _wide_belongings(cluster: Cluster, client: ClientId) -> list[Manifest]:
    """Return the client's rights on the whole cluster, which nothing of its namespace can own."""
    try:
        found = [await cluster.list(kind, None, wide_labels(client)) for kind in _WIDE]
    except CommandError as error:
        if error.code is not ExitCode.REFUSED:
            raise
        selector = ",".join(f"{key}={value}" for key, value in wide_labels(client).items())
        typer.echo(
            "note: you may not see whether the account has rights on the whole cluster that were made for this client; "
            f"a cluster admin deletes them: kubectl delete clusterrolebindings,clusterroles -l {selector}",
            err=True,
        )
        return []
    return [manifest for some in found for manifest in some]


async def remove_all(cluster: Cluster, manifests: list[Manifest]) -> list[Manifest]:
    """Delete exactly these objects and return those that were still there. Raises CommandError."""
    return [manifest for manifest in manifests if await cluster.delete(manifest)]
