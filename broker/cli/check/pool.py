"""The objects that decide what an account may do: those of the files, and those of the cluster. Mostly pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from broker.cli.check.manifest_files import FromFile, mapping, mappings
from broker.cli.cluster import Cluster
from broker.cli.errors import RefusedError
from broker.cli.manifests import BrokerAccount, Manifest
from broker.cli.resources import Kind
from broker.model.access import Rules, read_rules
from broker.model.account import account_groups, account_user
from broker.model.api_resources import Catalogue

_ROLES = ("Role", "ClusterRole")
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")


@dataclass(frozen=True, slots=True)
class Pool:
    """Manifests of files, and objects of the cluster that count with them; no catalogue means that none was asked.

    ``unseen`` are the kinds that the user may not list in the cluster.
    """

    files: tuple[FromFile, ...]
    cluster: tuple[Manifest, ...] = ()
    catalogue: Catalogue | None = None
    unseen: frozenset[str] = frozenset()

    @property
    def clients(self) -> list[FromFile]:
        """The registrations."""
        return [it for it in self.files if it.manifest["kind"] == Kind.TOKEN_CLIENT.value.kind]

    @property
    def roles(self) -> list[FromFile]:
        """The Roles and ClusterRoles of the files."""
        return [it for it in self.files if it.manifest["kind"] in _ROLES]

    def find(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """Return an object; that of the files where the cluster has another one."""
        wanted = (kind, namespace, name)
        return next((it for it in self._all() if _key(it) == wanted), None)

    def rules(self, namespace: str, account: BrokerAccount) -> Rules:
        """Return what is known of an account's rights in a namespace.

        There is a doubt where a bound role is known to nobody, and where not all bindings could be seen.
        """
        roles = [(it, self._role_of(it)) for it in self._bindings(namespace, account)]
        missing = [str(mapping(binding.get("roleRef")).get("name")) for binding, role in roles if role is None]
        doubts = [*missing, *(kind for kind in _BINDINGS if not self.sees(kind))]
        rules = tuple(rule for _, role in roles if role for rule in read_rules(mappings(role.get("rules"))))
        return Rules(rules, f"not known: {', '.join(doubts)}" if doubts else "")

    def cluster_roles(self, namespace: str, account: BrokerAccount) -> list[str]:
        """Return the names of the ClusterRoles that the account has in a namespace."""
        references = [mapping(it.get("roleRef")) for it in self._bindings(namespace, account)]
        return [str(it.get("name")) for it in references if it.get("kind") == "ClusterRole"]

    def in_cluster(self, kind: str, name: str) -> bool:
        """Tell whether the cluster has a cluster-scoped object already, as far as that can be seen."""
        return not self.sees(kind) or any(_key(it) == (kind, None, name) for it in self.cluster)

    def sees(self, kind: str) -> bool:
        """Tell whether what the pool has not, the cluster has not either."""
        return self.catalogue is not None and kind not in self.unseen

    def _bindings(self, namespace: str, account: BrokerAccount) -> list[Manifest]:
        return [it for it in self._all() if _binds(it, namespace, account)]

    def _role_of(self, binding: Manifest) -> Manifest | None:
        reference = mapping(binding.get("roleRef"))
        namespace = binding["metadata"].get("namespace") if reference.get("kind") == "Role" else None
        return self.find(str(reference.get("kind")), namespace, str(reference.get("name")))

    def _all(self) -> Iterator[Manifest]:
        """Yield all objects, those of the files instead of the cluster's of the same name."""
        own = [it.manifest for it in self.files]
        yield from own
        keys = {_key(it) for it in own}
        yield from (it for it in self.cluster if _key(it) not in keys)


def in_files(files: Iterable[FromFile]) -> Pool:
    """Return the pool of the files alone."""
    return Pool(tuple(files))


async def with_cluster(pool: Pool, cluster: Cluster) -> Pool:
    """Return the pool with what the cluster has besides, as far as the user may see it. Raises CommandError."""
    catalogue = await cluster.catalogue()
    namespaces = sorted({str(it.manifest["metadata"]["namespace"]) for it in pool.clients if _namespace(it)})
    inside = [(kind, it) for it in namespaces for kind in (Kind.SERVICE_ACCOUNT, Kind.ROLE, Kind.ROLE_BINDING)]
    found: list[Manifest] = []
    unseen: set[str] = set()
    for kind, namespace in (*inside, (Kind.CLUSTER_ROLE_BINDING, None), (Kind.CLUSTER_ROLE, None)):
        try:
            found += await cluster.list(kind, namespace)
        except RefusedError:
            unseen.add(kind.value.kind)
    found += [it for it in [await _space(cluster, name, unseen) for name in namespaces] if it]
    return replace(pool, cluster=tuple(found), catalogue=catalogue, unseen=frozenset(unseen))


async def _space(cluster: Cluster, name: str, unseen: set[str]) -> Manifest | None:
    try:
        return await cluster.get(Kind.NAMESPACE, None, name)
    except RefusedError:
        unseen.add(Kind.NAMESPACE.value.kind)
        return None


def _namespace(found: FromFile) -> object:
    return found.manifest["metadata"].get("namespace")


def _key(manifest: Manifest) -> tuple[str, str | None, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace"), metadata["name"]


def _binds(binding: Manifest, namespace: str, account: BrokerAccount) -> bool:
    """Tell whether a binding reaches the account in the namespace, by its name or by one of its groups."""
    if binding["kind"] not in _BINDINGS or binding["metadata"].get("namespace", namespace) != namespace:
        return False
    return any(_is(subject, account) for subject in mappings(binding.get("subjects")))


def _is(subject: Mapping[str, Any], account: BrokerAccount) -> bool:
    kind, name = subject.get("kind"), subject.get("name")
    if kind == "ServiceAccount":
        return (subject.get("namespace"), name) == (account.namespace, account.name)
    if kind == "User":
        return name == account_user(account.namespace, account.name)
    return kind == "Group" and name in account_groups(account.namespace)
