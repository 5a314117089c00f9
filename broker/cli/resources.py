"""Where the API server keeps the kinds of objects that the commands deal with."""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote

from broker.model.client import API_GROUP, API_VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object: how URLs and RBAC name it."""

    kind: str
    root: str
    group: str
    plural: str


class Kind(Enum):
    """The kinds that the commands deal with."""

    SERVICE_ACCOUNT = Resource("ServiceAccount", "/api/v1", "", "serviceaccounts")
    SECRET = Resource("Secret", "/api/v1", "", "secrets")
    ROLE = Resource("Role", "/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io", "roles")
    ROLE_BINDING = Resource("RoleBinding", ROLE.root, ROLE.group, "rolebindings")
    CLUSTER_ROLE = Resource("ClusterRole", ROLE.root, ROLE.group, "clusterroles")
    CLUSTER_ROLE_BINDING = Resource("ClusterRoleBinding", ROLE.root, ROLE.group, "clusterrolebindings")
    NAMESPACE = Resource("Namespace", "/api/v1", "", "namespaces")
    TOKEN_CLIENT = Resource("TokenClient", f"/apis/{API_VERSION}", API_GROUP, "tokenclients")

    @classmethod
    def named(cls, kind: str) -> "Kind":
        """Return the kind that a manifest names. Raises StopIteration for one that is none of ours."""
        return next(member for member in cls if member.value.kind == kind)


def path(kind: Kind, namespace: str | None = None, name: str | None = None) -> str:
    """Return the URL path of an object, or of all; without a namespace, those of the whole cluster."""
    parts = [kind.value.root]
    if namespace is not None:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts.append(kind.value.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    return "/".join(parts)
