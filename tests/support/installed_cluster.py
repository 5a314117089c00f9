"""A cluster of a test module's own, with deploy/base and nothing else: what is harmed in it harms nobody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.broker import Tenant
from tests.support.cluster import Cluster
from tests.support.installed import install

RBAC = "/apis/rbac.authorization.k8s.io/v1"
RBAC_GROUP = "rbac.authorization.k8s.io"


@asynccontextmanager
async def installed_cluster() -> AsyncIterator[Cluster]:
    """Start it, and end it on leaving."""
    async with Cluster.start(own=True) as cluster:
        await install(cluster)
        yield cluster


async def opted_in(cluster: Cluster, namespace: str) -> Tenant:
    """Make a namespace in which the broker may mint."""
    tenant = await Tenant.create(cluster, namespace)
    labels = {"tokenbroker.dev/clients": "enabled"}
    await cluster.request("PATCH", f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
    return tenant


async def bind(cluster: Cluster, namespace: str, name: str, role: tuple[str, str], *subjects: dict[str, str]) -> str:
    """Make a RoleBinding, or a ClusterRoleBinding for no namespace, and return its path."""
    kind, role_name = role
    where = f"{RBAC}/namespaces/{namespace}/rolebindings" if namespace else f"{RBAC}/clusterrolebindings"
    reference = {"kind": kind, "name": role_name, "apiGroup": RBAC_GROUP}
    body = {"metadata": {"name": name}, "roleRef": reference, "subjects": list(subjects)}
    status, answer = await cluster.request("POST", where, body)
    if status != 201:
        raise RuntimeError(f"{where}/{name}: {answer.get('message')}")
    return f"{where}/{name}"


def account(namespace: str, name: str) -> dict[str, str]:
    """Return an account as a binding names it."""
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def group(name: str) -> dict[str, str]:
    """Return a group as a binding names it."""
    return {"kind": "Group", "apiGroup": RBAC_GROUP, "name": name}
