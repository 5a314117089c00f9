"""What belongs to a client, and its removal."""

import typer

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, ExitCode, RefusedError
from broker.cli.manifests import Manifest, labels, wide_labels
from broker.cli.polling import rounds
from broker.cli.resources import Kind
from broker.model.client import ClientId

WAIT_SECONDS = 60.0
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
    except RefusedError:
        selector = ",".join(f"{key}={value}" for key, value in wide_labels(client).items())
        typer.echo(
            "note: you may not see whether the account has rights on the whole cluster that were made for this client; "
            f"a cluster admin deletes them: kubectl delete clusterrolebindings,clusterroles -l {selector}",
            err=True,
        )
        return []
    return [manifest for some in found for manifest in some]


async def remove_all(cluster: Cluster, manifests: list[Manifest]) -> list[Manifest]:
    """Delete exactly these objects and return those that were still there.

    The broker needs its Role to end the tokens: so all else waits until the TokenClient is really gone. Raises
    CommandError, also where it is not after a minute.
    """
    gone = []
    for manifest in manifests:
        if await cluster.delete(manifest):
            gone.append(manifest)
        if manifest["kind"] == Kind.TOKEN_CLIENT.value.kind:
            await _until_gone(cluster, manifest)
    return gone


async def _until_gone(cluster: Cluster, client: Manifest) -> None:
    metadata = client["metadata"]
    async for _ in rounds(WAIT_SECONDS):
        found = await cluster.get(Kind.TOKEN_CLIENT, metadata["namespace"], metadata["name"])
        if found is None or found["metadata"]["uid"] != metadata["uid"]:
            return
    raise _held(metadata["namespace"], metadata["name"])


def _held(namespace: str, name: str) -> CommandError:
    return CommandError(
        f"TokenClient {name} is being deleted, and issues nothing more, but the broker has not let it go within "
        f"{WAIT_SECONDS:g} s: it ends the tokens first. Its Role is left for that. Run this command again when the "
        "broker runs. Where there is no broker any more, who may update tokenclients/finalizers (a cluster admin) ends "
        "the tokens and lets it go: "
        f"kubectl delete secret -n {namespace} -l tokenbroker.dev/client={name} && kubectl patch tokenclient {name} "
        f'-n {namespace} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\'',
        ExitCode.UNAVAILABLE,
    )
