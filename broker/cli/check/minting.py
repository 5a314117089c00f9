"""What registered clients need the broker to be allowed to do, what is missing, and what is too much. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from broker.cli.check.rbac import ACCOUNT, GROUP, Binding, Rbac, Right, Subject, account_subject, read_rbac, rights
from broker.cli.manifests import BrokerAccount, Manifest, mint
from broker.model.access import Action, PolicyRule, allows
from broker.model.account import namespace_group
from broker.model.client import ClientId

_TOKEN = "serviceaccounts/token"  # noqa: S105 - a resource
_SHIPPED_ACCOUNT = {"kind": ACCOUNT, "namespace": "tokenbroker", "name": "tokenbroker"}
_ANCHOR_RIGHTS = frozenset({Right("secrets", "create"), Right("secrets", "delete")})


@dataclass(frozen=True, slots=True)
class Needs:
    """The accounts that a client is granted."""

    client: ClientId
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Surplus:
    """Rights of the broker's account that no client needs. ``mend`` takes them away."""

    binding: Binding
    what: str
    mend: str


def needed_actions(account: str) -> tuple[Action, ...]:
    """Return what the broker has to be allowed to do in an account's namespace for its tokens."""
    anchors = (Action(verb, resource="secrets") for verb in ("create", "delete"))
    return (Action("create", resource="serviceaccounts", subresource="token", name=account), *anchors)


def needs(token_clients: Iterable[Manifest]) -> list[Needs]:
    """Return what TokenClients need."""
    return [
        Needs(
            ClientId(it["metadata"]["namespace"], it["metadata"]["name"]),
            tuple(dict.fromkeys(grant["serviceAccount"]["name"] for grant in it["spec"]["grants"])),
        )
        for it in token_clients
    ]


def missing(wanted: Sequence[Needs], rbac: Rbac, broker: BrokerAccount) -> list[Manifest]:
    """Return the Roles and RoleBindings that would have to be applied."""
    bound = rbac.bound_to(*subjects(broker))
    found = []
    for it in wanted:
        held = _held(rbac, bound, it.client.namespace)
        if not all(_may(held, action) for account in it.accounts for action in needed_actions(account)):
            found += mint(it.client, it.accounts, broker)
    return found


def _held(rbac: Rbac, bound: Iterable[Binding], namespace: str) -> list[PolicyRule]:
    here = [it.role for it in bound if it.namespace in {"", namespace}]
    return [rule for role in here for rule in rbac.rules.get(role, ())]


def _may(held: Iterable[PolicyRule], action: Action) -> bool:
    return any(allows(rule, action) for rule in held)


def subjects(broker: BrokerAccount) -> tuple[Subject, Subject]:
    """Return the broker's account, and the group of its namespace: nobody else should be in that."""
    group = Subject(GROUP, "", namespace_group(broker.namespace))
    return account_subject(broker.namespace, broker.name), group


def too_much(wanted: Sequence[Needs], rbac: Rbac, broker: BrokerAccount, shipped: Rbac) -> Iterator[Surplus]:
    """Yield what the broker's account holds beyond the release's own manifests and what clients need."""
    known = {(it.namespace, it.name, it.role): rights(shipped.rules.get(it.role, ())) for it in shipped.bindings}
    for binding in rbac.bound_to(*subjects(broker)):
        if binding.role not in rbac.rules:
            text = f"whatever the {binding.role} holds, which could not be read"
            yield Surplus(
                binding, text, f"kubectl get {binding.role.kind.lower()} {binding.role.name}{_option(binding)}"
            )
            continue
        own = known.get((binding.namespace, binding.name, binding.role))
        held = rights(rbac.rules[binding.role])
        rest = held - (_allowed(wanted, binding.namespace) if own is None else own)
        if rest:
            yield Surplus(binding, ", ".join(map(str, sorted(rest))), _mend(binding, whole=rest == held))


def _allowed(wanted: Iterable[Needs], namespace: str) -> frozenset[Right]:
    """Return what clients of a namespace need there; nobody needs anything in the whole cluster."""
    accounts = {account for it in wanted if it.client.namespace == namespace for account in it.accounts}
    tokens = frozenset(Right(_TOKEN, "create", account) for account in accounts)
    return tokens | _ANCHOR_RIGHTS if accounts else frozenset()


def _mend(binding: Binding, *, whole: bool) -> str:
    if whole:
        return f"kubectl delete {binding.kind.lower()} {binding.name}{binding.option}"
    return f"kubectl edit {binding.role.kind.lower()} {binding.role.name}{_option(binding)}"


def _option(binding: Binding) -> str:
    return f" -n {binding.role.namespace}" if binding.role.namespace else ""


def shipped_rbac(manifests: Iterable[Manifest], broker: BrokerAccount) -> Rbac:
    """Return the release's roles and bindings, with the broker's own account and namespace in their places."""
    moved = [_moved(it, broker) for it in manifests]
    roles = [it for it in moved if it["kind"] in {"Role", "ClusterRole"}]
    return read_rbac(roles, [it for it in moved if it["kind"] in {"RoleBinding", "ClusterRoleBinding"}])


def _moved(manifest: Manifest, broker: BrokerAccount) -> Manifest:
    metadata = manifest["metadata"]
    if "namespace" in metadata:
        metadata = {**metadata, "namespace": broker.namespace}
    mine = {"kind": ACCOUNT, "namespace": broker.namespace, "name": broker.name}
    subjects = [mine if it == _SHIPPED_ACCOUNT else it for it in manifest.get("subjects", ())]
    return {**manifest, "metadata": metadata} | ({"subjects": subjects} if subjects else {})
