"""What a cluster serves, as its discovery documents say, and what kubectl's words for it mean. Pure.

The documents are ``APIGroupDiscoveryList``, as ``GET /api`` and ``GET /apis`` answer to
``Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`` (Kubernetes 1.30).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

DISCOVERY_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of a resource that has verbs of its own, such as ``log`` of ``pods``."""

    name: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApiResource:
    """One resource of an API group.

    ``verbs`` are served; ``special_verbs`` are no calls, but rights that RBAC knows (``bind``, ``impersonate``).
    """

    group: str
    version: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    kind: str
    namespaced: bool
    verbs: tuple[str, ...]
    subresources: tuple[Subresource, ...] = ()
    special_verbs: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The resource and its group, as kubectl and ``--rule`` write it: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def subresource(self, name: str) -> Subresource | None:
        """Return the subresource of that name, or None."""
        return next((it for it in self.subresources if it.name == name), None)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All resources, in kubectl's order of preference: the core group first, in each group its preferred version.

    ``stale`` names the groups whose own server does not answer: what they hold is not known.
    """

    resources: tuple[ApiResource, ...]
    stale: frozenset[str] = frozenset()

    def find(self, group: str, plural: str) -> ApiResource | None:
        """Return what RBAC, which knows no versions, means by a resource: that of all versions of the group."""
        versions = [it for it in self.resources if (it.group, it.plural) == (group, plural)]
        return _merged(versions) if versions else None

    def in_group(self, group: str) -> tuple[ApiResource, ...]:
        """Return the resources of a group, each once."""
        plurals = dict.fromkeys(it.plural for it in self.resources if it.group == group)
        return tuple(found for plural in plurals if (found := self.find(group, plural)))

    @property
    def groups(self) -> tuple[str, ...]:
        """The API groups by preference; the core group's name is empty."""
        return tuple(dict.fromkeys(it.group for it in self.resources))

    def resolve(self, word: str) -> ApiResource | None:
        """Return what kubectl takes a word for (``pods``, ``po``, ``deployments.apps``, ``deployments.v1.apps``).

        As client-go's shortcut expander and discovery RESTMapper do it (restmapper/shortcut.go and discovery.go):
        plural and singular names go before short names, and a group may be cut short (``cronjobs.bat``). Left out
        are the plurals that client-go guesses for list kinds (``podlist``), which no server knows.
        """
        name, _, rest = word.lower().partition(".")
        version, dot, group = rest.partition(".")
        found = self._match(*self._expand(name, group, version)) if dot else None
        return found or self._match(*self._expand(name, rest, ""))

    def _expand(self, name: str, group: str, version: str) -> tuple[str, str, str]:
        in_group = [it for it in self.resources if group in {"", it.group}]
        if any(name in {it.plural, it.singular} for it in in_group):
            return name, group, version
        for it in in_group:
            if name in it.short_names:
                return it.plural, it.group, ""
        for it in self.resources:
            if group and it.group.startswith(group) and name in it.short_names:
                return it.plural, it.group, version
        return name, group, version

    def _match(self, name: str, group: str, version: str) -> ApiResource | None:
        for it in self.resources:
            right_group = it.group == group if version and group else it.group.startswith(group)
            if name in {it.plural, it.singular} and right_group and version in {"", it.version}:
                return self.find(it.group, it.plural)
        return None


def parse_catalogue(*documents: Document) -> Catalogue:
    """Return what discovery documents say, ``/api`` before ``/apis``, and what RBAC knows besides.

    Raises ValueError where one is no aggregated discovery document.
    """
    groups = [group for document in documents for group in _groups(document)]
    served = [it for group in groups for it in _resources(group)]
    served.sort(key=lambda it: it.group != "")
    stale = frozenset(str(_group_name(group)) for group in groups if any(map(_is_stale, _versions(group))))
    return Catalogue((*(_with_rbac_names(it) for it in served), *_UNDISCOVERED), stale)


def _groups(document: Document) -> Iterable[Document]:
    if document.get("kind") != "APIGroupDiscoveryList":
        raise ValueError("the answer is no APIGroupDiscoveryList: Kubernetes serves them from 1.30 on.")
    return document.get("items") or ()


def _group_name(group: Document) -> str:
    return str((group.get("metadata") or {}).get("name") or "")


def _versions(group: Document) -> Iterable[Document]:
    return group.get("versions") or ()


def _is_stale(version: Document) -> bool:
    return version.get("freshness") == "Stale"


def _resources(group: Document) -> Iterator[ApiResource]:
    for version in _versions(group):
        if not _is_stale(version):
            for it in version.get("resources") or ():
                yield _resource(_group_name(group), str(version["version"]), it)


def _resource(group: str, version: str, it: Document) -> ApiResource:
    kind = str((it.get("responseKind") or {}).get("kind") or "")
    return ApiResource(
        group=group,
        version=version,
        plural=str(it["resource"]),
        singular=str(it.get("singularResource") or kind.lower() or it["resource"]),
        short_names=_strings(it.get("shortNames")),
        kind=kind,
        namespaced=it.get("scope") == "Namespaced",
        verbs=_strings(it.get("verbs")),
        subresources=tuple(
            Subresource(str(part["subresource"]), _strings(part.get("verbs"))) for part in it.get("subresources") or ()
        ),
    )


def _strings(values: Iterable[object] | None) -> tuple[str, ...]:
    return tuple(str(value) for value in values or ())


def _merged(versions: list[ApiResource]) -> ApiResource:
    verbs = dict.fromkeys(verb for it in versions for verb in it.verbs)
    parts: dict[str, dict[str, None]] = {}
    for part in (part for it in versions for part in it.subresources):
        parts.setdefault(part.name, {}).update(dict.fromkeys(part.verbs))
    subresources = tuple(Subresource(name, tuple(known)) for name, known in parts.items())
    return replace(versions[0], verbs=tuple(verbs), subresources=subresources)


RBAC_GROUP = "rbac.authorization.k8s.io"
AUTHENTICATION_GROUP = "authentication.k8s.io"

_IMPERSONATION = ("impersonate", "impersonate:user-info")
_SPECIAL_VERBS = {
    (RBAC_GROUP, "roles"): ("bind", "escalate"),
    (RBAC_GROUP, "clusterroles"): ("bind", "escalate"),
    ("", "serviceaccounts"): ("impersonate", "impersonate:serviceaccount"),
    ("", "nodes"): ("impersonate:arbitrary-node", "impersonate:associated-node"),
}
_KUBELET = (
    *(Subresource(name, ("get",)) for name in ("configz", "healthz", "log", "metrics", "pods", "stats", "statusz")),
    Subresource("checkpoint", ("create",)),
)
"""What a kubelet asks the API server about its callers (kubernetes: pkg/kubelet/server/auth.go)."""


def _with_rbac_names(it: ApiResource) -> ApiResource:
    extra = _KUBELET if (it.group, it.plural) == ("", "nodes") else ()
    special = _SPECIAL_VERBS.get((it.group, it.plural), ())
    return replace(it, subresources=(*it.subresources, *extra), special_verbs=special)


def _undiscovered(group: str, plural: str, verbs: tuple[str, ...]) -> ApiResource:
    return ApiResource(group, "", plural, plural, (), "", namespaced=False, verbs=(), special_verbs=verbs)


_UNDISCOVERED = (
    _undiscovered("", "users", _IMPERSONATION),
    _undiscovered("", "groups", _IMPERSONATION),
    *(_undiscovered(AUTHENTICATION_GROUP, it, _IMPERSONATION) for it in ("users", "groups", "uids", "userextras")),
    _undiscovered(AUTHENTICATION_GROUP, "serviceaccounts", ("impersonate:serviceaccount",)),
    _undiscovered(AUTHENTICATION_GROUP, "nodes", ("impersonate:arbitrary-node", "impersonate:associated-node")),
    _undiscovered("certificates.k8s.io", "signers", ("approve", "sign", "attest")),
)
"""What no server lists and RBAC asks about all the same."""
