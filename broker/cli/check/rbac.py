"""Roles and bindings of a cluster, and what an account holds by them. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from broker.cli.manifests import Manifest
from broker.model.access import PolicyRule, read_rules
from broker.model.account import account_groups

ACCOUNT, GROUP = "ServiceAccount", "Group"
_BOOTSTRAP = "kubernetes.io/bootstrapping"


@dataclass(frozen=True, slots=True)
class Subject:
    """An account or a group; ``namespace`` is empty for a group."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Role:
    """A Role or ClusterRole by name; ``namespace`` is empty for the latter."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Binding:
    """A RoleBinding, or, where ``namespace`` is empty, a ClusterRoleBinding.

    ``shipped`` ones are made by Kubernetes itself.
    """

    namespace: str
    name: str
    role: Role
    subjects: tuple[Subject, ...]
    shipped: bool = False

    @property
    def kind(self) -> str:
        """RoleBinding or ClusterRoleBinding."""
        return "RoleBinding" if self.namespace else "ClusterRoleBinding"

    @property
    def where(self) -> str:
        """Where it holds, as sentences and ``kubectl`` need it."""
        return f"in {self.namespace}" if self.namespace else "in the whole cluster"

    @property
    def option(self) -> str:
        """What ``kubectl`` has to be told about where it is."""
        return f" -n {self.namespace}" if self.namespace else ""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource, or on one URL. Without a ``name``, any object; ``resource`` has its group."""

    resource: str
    verb: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f"/{self.name}" if self.name else "")


@dataclass(frozen=True, slots=True)
class Rbac:
    """What was read. A role that is not in ``rules`` could not be read, or is not there."""

    rules: Mapping[Role, tuple[PolicyRule, ...]]
    bindings: tuple[Binding, ...]

    def bound_to(self, *subjects: Subject) -> list[Binding]:
        """Return the bindings of any of the subjects."""
        return [it for it in self.bindings if any(subject in it.subjects for subject in subjects)]


def account_subject(namespace: str, name: str) -> Subject:
    """Return an account as bindings name it."""
    return Subject(ACCOUNT, namespace, name)


def group_subjects(namespace: str) -> tuple[Subject, ...]:
    """Return the groups of each account of a namespace."""
    return tuple(Subject(GROUP, "", name) for name in account_groups(namespace))


def read_rbac(roles: Iterable[Manifest], bindings: Iterable[Manifest]) -> Rbac:
    """Return what objects of the API say."""
    return Rbac({_role(it): read_rules(it.get("rules") or ()) for it in roles}, tuple(map(read_binding, bindings)))


def _role(manifest: Manifest) -> Role:
    metadata = manifest["metadata"]
    return Role(manifest["kind"], metadata.get("namespace", ""), metadata["name"])


def read_binding(manifest: Manifest) -> Binding:
    """Return a RoleBinding or ClusterRoleBinding."""
    metadata, reference = manifest["metadata"], manifest["roleRef"]
    namespace = metadata.get("namespace", "")
    inside = namespace if reference["kind"] == "Role" else ""
    return Binding(
        namespace=namespace,
        name=metadata["name"],
        role=Role(reference["kind"], inside, reference["name"]),
        subjects=tuple(
            Subject(it["kind"], it.get("namespace", ""), it["name"]) for it in manifest.get("subjects") or ()
        ),
        shipped=_BOOTSTRAP in metadata.get("labels", {}),
    )


def rights(rules: Iterable[PolicyRule]) -> frozenset[Right]:
    """Return every single right that rules give."""
    return frozenset(right for rule in rules for right in _rights(rule))


def _rights(rule: PolicyRule) -> Iterator[Right]:
    for verb in rule.verbs:
        yield from (Right(url, verb) for url in rule.urls)
        for group in rule.groups:
            for resource in rule.resources:
                yield from (Right(_whole(group, resource), verb, name) for name in rule.names or ("",))


def _whole(group: str, resource: str) -> str:
    plural, slash, subresource = resource.partition("/")
    return f"{plural}.{group}{slash}{subresource}" if group else resource
