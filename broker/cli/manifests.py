"""The objects that register one client, as Kubernetes takes them. Pure.

Whoever applies them needs to hold the rights they give: the broker has no part in that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.cli.rules import Rule
from broker.model.client import ClientId

Manifest = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
CLIENT = "tokenbroker.dev/client"
RBAC = "rbac.authorization.k8s.io"
API_VERSION = "tokenbroker.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class BrokerAccount:
    """The service account under which the broker runs."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Account:
    """The client's own service account, and whether it is to be made."""

    name: str
    create: bool


@dataclass(frozen=True, slots=True)
class Rights:
    """What the account may do: ClusterRoles bound in the namespace, and rules of a Role of its own."""

    cluster_roles: tuple[str, ...]
    rules: tuple[Rule, ...]


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


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client to register.

    ``digest`` is that of its secret, or empty where it has none; ``proofs`` are what else proves it, as the
    resource writes them (:mod:`broker.cli.proofs`).
    """

    id: ClientId
    owner: str
    account: Account
    rights: Rights
    grant: NewGrant
    broker: BrokerAccount
    digest: str
    proofs: tuple[Manifest, ...] = ()


def labels(client: str) -> dict[str, str]:
    """Return what marks an object as made for a client, and by us."""
    return {MANAGED_BY: "tokenbroker", CLIENT: client}


def manifests(new: NewClient) -> list[Manifest]:
    """Return all objects in the order of their making: the TokenClient last, for it needs the others."""
    account = [_object(new.id, "v1", "ServiceAccount", new.account.name)] if new.account.create else []
    return [*account, *_access(new), *mint(new.id, [new.account.name], new.broker), token_client(new)]


def token_client(new: NewClient) -> Manifest:
    """Return the TokenClient, with every default written out, so that it reads as it works."""
    spec: Manifest = {"owner": new.owner} if new.owner else {}
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
    return grant


def _vault(vault: Vault) -> dict[str, str]:
    return {"ttl": vault.ttl} | ({"renewBefore": vault.renew_before} if vault.renew_before else {})


def mint(client: ClientId, accounts: Sequence[str], broker: BrokerAccount) -> list[Manifest]:
    """Return what lets the broker mint for a client's accounts, and make and delete anchors.

    Creating Secrets cannot be limited by name: admission (deploy/base) limits the broker to anchors.
    """
    name = f"tokenbroker-mint-{client.name}"
    tokens = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": list(accounts),
        "verbs": ["create"],
    }
    anchors = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]}
    subject = _subject(broker.namespace, broker.name)
    return [_role(client, name, [tokens, anchors]), _binding(client, name, "Role", name, subject)]


def _access(new: NewClient) -> list[Manifest]:
    """Return what lets the account do its work."""
    # A client's name has no dot, so that what follows one never meets another client's names.
    name = f"tokenbroker-access-{new.id.name}"
    account = _subject(new.id.namespace, new.account.name)
    bindings = [_binding(new.id, f"{name}.{role}", "ClusterRole", role, account) for role in new.rights.cluster_roles]
    if not new.rights.rules:
        return bindings
    role = _role(new.id, name, [_policy_rule(rule) for rule in new.rights.rules])
    return [role, _binding(new.id, name, "Role", name, account), *bindings]


def _subject(namespace: str, name: str) -> Manifest:
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def _policy_rule(rule: Rule) -> Manifest:
    return {"apiGroups": [rule.group], "resources": list(rule.resources), "verbs": list(rule.verbs)}


def _role(client: ClientId, name: str, rules: list[Manifest]) -> Manifest:
    return {**_object(client, f"{RBAC}/v1", "Role", name), "rules": rules}


def _binding(client: ClientId, name: str, kind: str, role: str, subject: Manifest) -> Manifest:
    reference = {"apiGroup": RBAC, "kind": kind, "name": role}
    return {**_object(client, f"{RBAC}/v1", "RoleBinding", name), "roleRef": reference, "subjects": [subject]}


def _object(client: ClientId, api_version: str, kind: str, name: str) -> Manifest:
    metadata = {"name": name, "namespace": client.namespace, "labels": labels(client.name)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
