"""The objects that register one client, as Kubernetes takes them. Pure.

Whoever applies them needs to hold the rights they give: the broker has no part in that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from broker.model.access import PolicyRule
from broker.model.client import API_VERSION, ClientId, Expect, Revocation

Manifest = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
CLIENT = "tokenbroker.dev/client"
NAMESPACE = "tokenbroker.dev/namespace"
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class BrokerAccount:
    """The service account under which the broker runs."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the account that was written as ``namespace/name``; its parts are not looked at."""
        namespace, _, name = text.partition("/")
        return cls(namespace, name)


@dataclass(frozen=True, slots=True)
class Account:
    """The client's own service account, and whether it is to be made."""

    name: str
    create: bool


@dataclass(frozen=True, slots=True)
class Rights:
    """What the account may do: ClusterRoles bound in the namespace, and rules of a Role of its own.

    The same again for the whole cluster, bound by ClusterRoleBindings.
    """

    cluster_roles: tuple[str, ...]
    rules: tuple[PolicyRule, ...]
    wide_roles: tuple[str, ...] = ()
    wide_rules: tuple[PolicyRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Vault:
    """A copy of the token in Vault; durations as the resource writes them, ``renew_before`` may be empty."""

    ttl: str
    renew_before: str


@dataclass(frozen=True, slots=True)
class NewGrant:
    """What tokens the client may have of its account; durations as the resource writes them."""

    name: str
    ttl: str
    max_ttl: str
    audiences: tuple[str, ...]
    vault: Vault | None
    revocation: Revocation = Revocation.GRANT
    expect: Expect = field(default_factory=Expect)
    reuse: str = "0s"


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client to register.

    ``rate`` is as the resource writes it, or empty. ``digest`` is that of its secret, or empty where it has none;
    ``proofs`` are what else proves it, as the resource writes them (:mod:`broker.cli.proofs`).
    """

    id: ClientId
    owner: str
    account: Account
    rights: Rights
    grant: NewGrant
    broker: BrokerAccount
    digest: str
    proofs: tuple[Manifest, ...] = ()
    rate: Mapping[str, int] = field(default_factory=dict)


def title(manifest: Manifest) -> str:
    """Return how messages name an object."""
    metadata = manifest["metadata"]
    return f"{manifest['kind']} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"


def labels(client: str) -> dict[str, str]:
    """Return what marks an object of the client's namespace as made for it, and by us."""
    return {MANAGED_BY: "tokenbroker", CLIENT: client}


def wide_labels(client: ClientId) -> dict[str, str]:
    """Return what marks a cluster-scoped object as made for a client: nothing of a namespace can own one."""
    return labels(client.name) | {NAMESPACE: client.namespace}


def manifests(new: NewClient) -> list[Manifest]:
    """Return all objects in the order of their making: the TokenClient last, for it needs the others."""
    account = [_object(new.id, "v1", "ServiceAccount", new.account.name)] if new.account.create else []
    return [
        *account,
        *_access(new),
        *_wide_access(new),
        *mint(new.id, [new.account.name], new.broker),
        token_client(new),
    ]


def token_client(new: NewClient) -> Manifest:
    """Return the TokenClient, with every default written out, so that it reads as it works."""
    spec: Manifest = {"owner": new.owner} if new.owner else {}
    if new.rate:
        spec["rate"] = dict(new.rate)
    proofs = [*(authentication(new.digest) if new.digest else ()), *new.proofs]
    if proofs:
        spec["authentication"] = proofs
    spec["grants"] = [_grant(new.grant, new.account)]
    return {**_object(new.id, API_VERSION, "TokenClient", new.id.name), "spec": spec}


def authentication(*digests: str) -> list[Manifest]:
    """Return the proof by secrets with these digests, the older one first."""
    return [{"clientSecret": {"digests": list(digests)}}]


def _grant(new: NewGrant, account: Account) -> Manifest:
    grant: Manifest = {"name": new.name, "serviceAccount": {"name": account.name}}
    if new.audiences:
        grant["audiences"] = list(new.audiences)
    grant["ttl"] = {"default": new.ttl, "max": new.max_ttl}
    if new.vault:
        grant["vault"] = _vault(new.vault)
    grant["revocation"] = new.revocation.value
    grant["reuse"] = new.reuse
    expect = {"allow": list(new.expect.allow), "deny": list(new.expect.deny)}
    if any(expect.values()):
        grant["expect"] = {key: texts for key, texts in expect.items() if texts}
    return grant


def _vault(vault: Vault) -> dict[str, str]:
    return {"ttl": vault.ttl} | ({"renewBefore": vault.renew_before} if vault.renew_before else {})


def mint(client: ClientId, accounts: Sequence[str], broker: BrokerAccount) -> list[Manifest]:
    """Return what lets the broker mint for a client's accounts, and make and delete anchors.

    Creating Secrets cannot be limited by name: admission (deploy/base) limits the broker to anchors.
    """
    name = f"tokenbroker-mint-{client.name}"
    tokens = PolicyRule(("create",), ("",), ("serviceaccounts/token",), tuple(accounts))
    anchors = PolicyRule(("create", "delete"), ("",), ("secrets",))
    subject = _subject(broker.namespace, broker.name)
    role = _role(client, "Role", name, [tokens, anchors])
    return [role, _binding(client, "RoleBinding", name, ("Role", name), subject)]


def _access(new: NewClient) -> list[Manifest]:
    """Return what lets the account do its work in the namespace."""
    # A client's name has no dot, so that what follows one never meets another client's names.
    name = f"tokenbroker-access-{new.id.name}"
    return _rights(new, ("Role", "RoleBinding"), name, new.rights.rules, new.rights.cluster_roles)


def _wide_access(new: NewClient) -> list[Manifest]:
    """Return what lets the account do its work in the whole cluster."""
    name = f"tokenbroker-access.{new.id.namespace}.{new.id.name}"
    return _rights(new, ("ClusterRole", "ClusterRoleBinding"), name, new.rights.wide_rules, new.rights.wide_roles)


def _rights(
    new: NewClient, kinds: tuple[str, str], name: str, rules: tuple[PolicyRule, ...], cluster_roles: tuple[str, ...]
) -> list[Manifest]:
    role, binding = kinds
    account = _subject(new.id.namespace, new.account.name)
    own = [_role(new.id, role, name, rules), _binding(new.id, binding, name, (role, name), account)] if rules else []
    return own + [_binding(new.id, binding, f"{name}.{it}", ("ClusterRole", it), account) for it in cluster_roles]


def _subject(namespace: str, name: str) -> Manifest:
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def _policy_rule(rule: PolicyRule) -> Manifest:
    parts = {
        "apiGroups": rule.groups,
        "resources": rule.resources,
        "resourceNames": rule.names,
        "nonResourceURLs": rule.urls,
        "verbs": rule.verbs,
    }
    return {key: list(values) for key, values in parts.items() if values}


def _role(client: ClientId, kind: str, name: str, rules: Iterable[PolicyRule]) -> Manifest:
    return {**_object(client, f"{RBAC}/v1", kind, name), "rules": [_policy_rule(rule) for rule in rules]}


def _binding(client: ClientId, kind: str, name: str, role: tuple[str, str], subject: Manifest) -> Manifest:
    reference = {"apiGroup": RBAC, "kind": role[0], "name": role[1]}
    return {**_object(client, f"{RBAC}/v1", kind, name), "roleRef": reference, "subjects": [subject]}


def _object(client: ClientId, api_version: str, kind: str, name: str) -> Manifest:
    if kind.startswith("Cluster"):
        metadata: Manifest = {"name": name, "labels": wide_labels(client)}
    else:
        metadata = {"name": name, "namespace": client.namespace, "labels": labels(client.name)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
