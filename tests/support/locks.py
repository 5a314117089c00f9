"""Who attacks the locks: a thief of the broker's credential, and users with some rights in one namespace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from tests.support.broker import Tenant
from tests.support.cluster import Cluster
from tests.support.installed import refused_by
from tests.support.processes import until

Outcome: TypeAlias = tuple[int, dict[str, Any]]
Rule: TypeAlias = dict[str, list[str]]

RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUDIENCE = "https://kubernetes.default.svc.cluster.local"
ANCHOR = "tokenbroker-anchor-mine"
CLIENT_RULE: Rule = {
    "apiGroups": ["tokenbroker.dev"],
    "resources": ["tokenclients"],
    "verbs": ["get", "list", "create", "update", "patch", "delete"],
}


def assert_held(outcome: Outcome, policy: str, words: str = "") -> None:
    """Assert that this policy refused, and for this reason, and nothing else did."""
    status, answer = outcome
    assert refused_by(policy, status, answer), (status, answer.get("message"))
    assert words in answer["message"]


def assert_forbidden(outcome: Outcome, account: str) -> None:
    """Assert that RBAC refused, and to whom."""
    status, answer = outcome
    assert (status, answer.get("reason")) == (403, "Forbidden"), answer.get("message")
    assert f'User "{account}" cannot' in answer["message"]


def assert_passed(outcome: Outcome, status: int = 200) -> None:
    """Assert that nothing refused."""
    assert outcome[0] == status, outcome[1].get("message")


def anchor(**metadata: Any) -> dict[str, Any]:
    """Return an anchor as the broker makes it, but for what is changed in its metadata."""
    owner = {"apiVersion": "tokenbroker.dev/v1alpha1", "kind": "TokenClient", "name": "web", "uid": "0a1b"}
    labels = {"tokenbroker.dev/client": "web", "tokenbroker.dev/anchor": "grant"}
    made = {"name": ANCHOR, "labels": labels, "ownerReferences": [owner]} | metadata
    return {"type": "tokenbroker.dev/anchor", "metadata": {key: value for key, value in made.items() if value}}


@dataclass(frozen=True, slots=True)
class Thief:
    """Somebody with the broker's own credential. The owner of ``tenant`` lets the broker mint for ``reader``."""

    tenant: Tenant
    token: str

    @classmethod
    async def steal(cls, tenant: Tenant) -> Self:
        """Prepare the namespace, with an anchor, and take the credential."""
        thief = cls(tenant, await tenant.cluster.token_for(*tenant.broker))
        await tenant.account("reader")
        await thief.until_may_mint("reader")
        assert_passed(await thief.make(anchor(ownerReferences=[await thief.account_owner()])), 201)
        return thief

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Outcome:
        """Call the API server."""
        return await self.tenant.cluster.request(method, path, body, token=self.token)

    async def mint(self, account: str = "reader", **changes: Any) -> Outcome:
        """Ask for a token as the broker does, but for what is changed; None leaves a field out."""
        bound = {"apiVersion": "v1", "kind": "Secret", "name": ANCHOR}
        spec = {"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": bound} | changes
        sent = {key: value for key, value in spec.items() if value is not None}
        return await self.call("POST", f"{self.core}/serviceaccounts/{account}/token", {"spec": sent})

    async def make(self, secret: dict[str, Any], query: str = "") -> Outcome:
        """Make a Secret."""
        return await self.call("POST", f"{self.core}/secrets{query}", secret)

    async def is_given(self, group: str, resource: str, verb: str) -> None:
        """Let somebody give the broker's account a right in the namespace that it should not have."""
        cluster, namespace = self.tenant.cluster, self.tenant.namespace
        name = {"metadata": {"name": "too-much"}}
        rules = [{"apiGroups": [group], "resources": [resource], "verbs": [verb]}]
        await cluster.request("POST", f"{RBAC}/namespaces/{namespace}/roles", name | {"rules": rules})
        account_namespace, account = self.tenant.broker
        binding = {
            "roleRef": {"kind": "Role", "name": "too-much", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}],
        }
        await cluster.request("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", name | binding)
        await until_may(cluster, self.token, namespace=namespace, group=group, verb=verb, resource=resource)

    async def until_may_mint(self, account: str) -> None:
        """Wait until the API server knows the Role that lets the broker mint, so that RBAC is not what refuses."""
        may_mint = {"verb": "create", "resource": "serviceaccounts", "subresource": "token", "name": account}
        await until_may(self.tenant.cluster, self.token, namespace=self.tenant.namespace, **may_mint)

    async def account_owner(self) -> dict[str, str]:
        """Return the account ``reader`` as the owner of what shall stay while it does."""
        _, account = await self.tenant.cluster.request("GET", f"{self.core}/serviceaccounts/reader")
        return {"apiVersion": "v1", "kind": "ServiceAccount", "name": "reader", "uid": account["metadata"]["uid"]}

    @property
    def core(self) -> str:
        """Where the namespace's core objects are."""
        return f"/api/v1/namespaces/{self.tenant.namespace}"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with some rights in one namespace."""

    cluster: Cluster
    namespace: str
    token: str

    @classmethod
    async def create(cls, tenant: Tenant, name: str, *rules: Rule) -> Self:
        """Make one who may what the rules say, and wait until the API server knows."""
        role = {"metadata": {"name": name}, "rules": list(rules)}
        await tenant.cluster.request("POST", f"{RBAC}/namespaces/{tenant.namespace}/roles", role)
        user = await cls.with_role(tenant, name, {"kind": "Role", "name": name})
        for rule in rules:
            await user.until_may(rule)
        return user

    @classmethod
    async def with_role(cls, tenant: Tenant, name: str, role: dict[str, str]) -> Self:
        """Make one who is bound to a Role or ClusterRole."""
        cluster, namespace = tenant.cluster, tenant.namespace
        await cluster.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        binding = {
            "metadata": {"name": f"user-{name}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", **role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        await cluster.request("POST", f"{RBAC}/namespaces/{namespace}/rolebindings", binding)
        return cls(cluster, namespace, await cluster.token_for(namespace, name))

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Outcome:
        """Call the API server; ``path`` is below the namespace's in ``core`` or ``clients``."""
        return await self.cluster.request(method, path, body, token=self.token)

    async def until_may(self, rule: Rule) -> None:
        """Wait until the API server knows all of a rule."""
        for name in rule.get("resourceNames", [""]):
            resource, _, subresource = rule["resources"][0].partition("/")
            attributes = {"group": rule["apiGroups"][0], "resource": resource, "subresource": subresource, "name": name}
            await until_may(self.cluster, self.token, namespace=self.namespace, verb=rule["verbs"][0], **attributes)

    @property
    def clients(self) -> str:
        """Where the namespace's TokenClients are."""
        return f"/apis/tokenbroker.dev/v1alpha1/namespaces/{self.namespace}/tokenclients"

    @property
    def secrets(self) -> str:
        """Where the namespace's Secrets are."""
        return f"/api/v1/namespaces/{self.namespace}/secrets"


def minting(accounts: Sequence[str]) -> Rule:
    """Return the rule that lets somebody create tokens of accounts."""
    return {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": list(accounts),
        "verbs": ["create"],
    }


async def until_may(cluster: Cluster, token: str, **attributes: str) -> None:
    """Wait until whoever has the token may do something."""
    review = {"spec": {"resourceAttributes": attributes}}

    async def may() -> bool:
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        _, answer = await cluster.request("POST", path, review, token=token)
        return bool(answer["status"]["allowed"])

    await until(may, what=f"allowed: {attributes}")
