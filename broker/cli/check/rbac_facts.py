"""Reads the roles and bindings of a namespace, or of the whole cluster, with the user's rights."""

from broker.cli.check.rbac import Rbac, read_rbac
from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError
from broker.cli.manifests import Manifest
from broker.cli.resources import Kind


async def read(cluster: Cluster, namespace: str | None) -> Rbac:
    """Return what there is; without a namespace, all of the cluster. Raises CommandError."""
    bindings = await cluster.list(Kind.ROLE_BINDING, namespace)
    roles = await cluster.list(Kind.ROLE, namespace)
    if namespace is None:
        bindings += await cluster.list(Kind.CLUSTER_ROLE_BINDING, None)
        return read_rbac([*roles, *await cluster.list(Kind.CLUSTER_ROLE, None)], bindings)
    return read_rbac([*roles, *await _cluster_roles(cluster, bindings)], bindings)


async def _cluster_roles(cluster: Cluster, bindings: list[Manifest]) -> list[Manifest]:
    """Return the ClusterRoles that bindings name, as far as they are there and the user may read them."""
    references = [it["roleRef"] for it in bindings]
    names = dict.fromkeys(str(it["name"]) for it in references if it["kind"] == Kind.CLUSTER_ROLE.value.kind)
    found = [await _readable(cluster, name) for name in names]
    return [it for it in found if it is not None]


async def _readable(cluster: Cluster, name: str) -> Manifest | None:
    try:
        return await cluster.get(Kind.CLUSTER_ROLE, None, name)
    except CommandError:
        return None
