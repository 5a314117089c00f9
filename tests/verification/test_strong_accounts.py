"""Accounts that could outlive the revocation of their tokens: refused, unless the operator allows them there."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.accounts import Account, ask, issued, rule, until_dead, until_refused, works
from tests.support.broker import Registered, token_client
from tests.support.locks import RBAC, Rule
from tests.support.processes import until
from tests.verification.conftest import Limited

RBAC_GROUP, CERTIFICATES = "rbac.authorization.k8s.io", "certificates.k8s.io"
ADMISSION, AUTHENTICATION = "admissionregistration.k8s.io", "authentication.k8s.io"

STRONG: dict[str, Rule] = {
    "tokens": rule("create", "serviceaccounts/token"),
    "tokens-of-one": rule("create", "serviceaccounts/token", name="reader"),
    "pods": rule("create", "pods"),
    "pods-by-patch": rule("patch", "pods"),
    "deployments": rule("create", "deployments", "apps"),
    "daemonsets": rule("patch", "daemonsets", "apps"),
    "statefulsets": rule("update", "statefulsets", "apps"),
    "replicasets": rule("create", "replicasets", "apps"),
    "controllers": rule("create", "replicationcontrollers"),
    "revisions": rule("create", "controllerrevisions", "apps"),
    "revisions-by-patch": rule("patch", "controllerrevisions", "apps"),
    "jobs": rule("create", "jobs", "batch"),
    "cronjobs": rule("patch", "cronjobs", "batch"),
    "exec": rule("create", "pods/exec"),
    "exec-by-get": rule("get", "pods/exec"),
    "attach": rule("create", "pods/attach"),
    "ephemeral": rule("patch", "pods/ephemeralcontainers"),
    "secrets": rule("create", "secrets"),
    "secrets-read": rule("get", "secrets"),
    "secrets-listed": rule("list", "secrets"),
    "secrets-watched": rule("watch", "secrets"),
    "secret-of-one-name": rule("get", "secrets", name="only"),
    "bindings": rule("create", "rolebindings", RBAC_GROUP),
    "roles": rule("update", "roles", RBAC_GROUP),
    "bind": rule("bind", "roles", RBAC_GROUP),
    "escalate": rule("escalate", "roles", RBAC_GROUP),
    "impersonate-accounts": rule("impersonate", "serviceaccounts"),
    "clients": rule("create", "tokenclients", "tokenbroker.dev"),
    "clients-by-patch": rule("patch", "tokenclients", "tokenbroker.dev"),
    "client-statuses": rule("update", "tokenclients/status", "tokenbroker.dev"),
    "namespace-labels": rule("patch", "namespaces"),
    "namespace-status": rule("patch", "namespaces/status"),
    "namespace-finalize": rule("update", "namespaces/finalize"),
    "pod-certificates": rule("create", "podcertificaterequests", CERTIFICATES),
    "everything": rule("*", "*", "*"),
}
"""Each as a Role in the client's namespace."""

STRONG_EVERYWHERE: dict[str, Rule] = {
    "cluster-bindings": rule("create", "clusterrolebindings", RBAC_GROUP),
    "cluster-roles": rule("escalate", "clusterroles", RBAC_GROUP),
    "cluster-bind": rule("bind", "clusterroles", RBAC_GROUP, name="view"),
    "impersonate-users": rule("impersonate", "users"),
    "impersonate-groups": rule("impersonate", "groups", name="system:masters"),
    "impersonate-info": rule("impersonate:user-info", "users", AUTHENTICATION),
    "nodes-proxy": rule("get", "nodes/proxy"),
    "csr": rule("create", "certificatesigningrequests", CERTIFICATES),
    "csr-approval": rule("update", "certificatesigningrequests/approval", CERTIFICATES),
    "csr-signing": rule("sign", "signers", CERTIFICATES),
    "webhooks": rule("create", "mutatingwebhookconfigurations", ADMISSION),
    "policies": rule("delete", "validatingadmissionpolicybindings", ADMISSION),
    "new-policies": rule("create", "validatingadmissionpolicies", ADMISSION),
    "flow-schemas": rule("create", "flowschemas", "flowcontrol.apiserver.k8s.io"),
    "api-groups": rule("create", "apiservices", "apiregistration.k8s.io"),
    "schema": rule("patch", "customresourcedefinitions", "apiextensions.k8s.io"),
    "schema-status": rule("patch", "customresourcedefinitions/status", "apiextensions.k8s.io"),
    "secrets-of-all": rule("get", "secrets"),
}
"""Each as a ClusterRole that is bound in the whole cluster."""


@dataclass(frozen=True, slots=True)
class Strong:
    """Clients, each of an account with one right only."""

    limited: Limited
    accounts: dict[str, Account]
    clients: dict[str, Registered]


async def _strong(limited: Limited, namespace: str) -> Strong:
    tenant = await limited.tenant(namespace)
    made = await asyncio.gather(
        *(Account.create(tenant, name, right) for name, right in STRONG.items()),
        *(Account.create(tenant, name, right, everywhere=True) for name, right in STRONG_EVERYWHERE.items()),
    )
    clients = await asyncio.gather(*(account.client() for account in made))
    names = [account.name for account in made]
    return Strong(limited, dict(zip(names, made, strict=True)), dict(zip(names, clients, strict=True)))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def refused(limited: Limited) -> Strong:
    """Make them where the operator says nothing."""
    return await _strong(limited, "weak-only")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def allowed(limited: Limited) -> Strong:
    """Make them where the operator allows strong accounts."""
    return await _strong(limited, "strong")


@pytest.mark.parametrize("right", [*STRONG, *STRONG_EVERYWHERE])
async def test_strong_account_is_refused(right: str, refused: Strong) -> None:
    """One such right is enough; the condition names the rule, the status says strong, and there is no anchor."""
    account, client = refused.accounts[right], refused.clients[right]
    reply = await until_refused(refused.limited.broker, client, "account_too_strong")
    condition = await account.until_condition("Ready", "False", "AccountTooStrong")
    [grant] = await account.grants()
    wanted = (STRONG | STRONG_EVERYWHERE)[right]

    assert reply.status == 403
    assert account.name not in reply.body["detail"]
    assert "is strong: it may" in condition["message"]
    assert f'Resources:["{wanted["resources"][0]}"]' in condition["message"]
    assert (grant["ready"], grant["strong"]) == (False, True)
    await account.until_without_anchors()


@pytest.mark.parametrize("right", [*STRONG, *STRONG_EVERYWHERE])
async def test_strong_account_is_served_where_the_operator_allows_it(right: str, allowed: Strong) -> None:
    """And is shown as what it is."""
    account = allowed.accounts[right]
    await account.until_condition("Ready", "True", "Ready")
    [grant] = await account.grants()

    assert (grant["ready"], grant["strong"]) == (True, True)
    assert await works(allowed.limited.cluster, await issued(allowed.limited.broker, allowed.clients[right]))


async def test_right_that_is_added_later_ends_what_was_handed_out(limited: Limited, record_property: Any) -> None:
    """At the next look, which a changed spec brings on: the token that was handed out is refused soon after."""
    account = await Account.create(await limited.tenant("grows-strong"), "grows", rule("get,list", "pods"))
    client = await account.client()
    await account.until_condition("Ready", "True", "Ready")
    token = await issued(limited.broker, client)
    before = (await account.grants())[0]["strong"]
    await account.grant("more", rule("create", "pods"))
    await account.touch()
    seconds = await until_dead(limited.cluster, token)
    await until_refused(limited.broker, client, "account_too_strong")
    await account.until_without_anchors()
    await account.until_condition("Ready", "False", "AccountTooStrong")

    record_property("seconds from the look to the refusal", round(seconds, 1))
    print(f"\nadded right: token refused {seconds:.1f} s after the spec was touched")  # noqa: T201
    assert before is False
    assert (await account.grants())[0]["strong"] is True
    assert len(await account.events("AccountTooStrong")) == 1
    await account.take("more")
    await account.until_condition("Ready", "True", "Ready", seconds=90)
    assert (await account.grants())[0]["strong"] is False
    assert await works(limited.cluster, await issued(limited.broker, client))


SERVED: dict[str, list[Rule]] = {
    "reads-pods": [rule("get,list,watch", "pods,pods/log,configmaps")],
    "writes-config": [rule("get,list,create,update,patch,delete", "configmaps,services,serviceaccounts")],
    "scales": [rule("get,patch", "deployments/scale", "apps"), rule("delete", "pods")],
    "reads-clients": [rule("get,list,watch", "tokenclients", "tokenbroker.dev")],
}
"""Rights that the broker serves by default."""


def _attempts(namespace: str, account: str, anchor: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return every way to another credential: method, path and body."""
    core, rbac = f"/api/v1/namespaces/{namespace}", f"{RBAC}/namespaces/{namespace}"
    pod = {"containers": [{"name": "x", "image": "x"}], "serviceAccountName": account}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
    workload = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    role = {"kind": "ClusterRole", "name": "admin", "apiGroup": RBAC_GROUP}
    me = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    legacy = {"name": "legacy", "annotations": {"kubernetes.io/service-account.name": account}}
    binding = {"metadata": {"name": "mine"}, "roleRef": role, "subjects": [me]}
    rules = {"metadata": {"name": "mine"}, "rules": [rule("create", "serviceaccounts/token")]}
    csr = {"request": "eA==", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    client = token_client(namespace, "mine", grants=[{"serviceAccount": {"name": account}, "vault": {}}])
    anchored = {"name": "tokenbroker-anchor-mine", "namespace": namespace}
    return {
        "a token of its own": ("POST", f"{core}/serviceaccounts/{account}/token", {"spec": {}}),
        "a token of another": ("POST", f"{core}/serviceaccounts/default/token", {"spec": {}}),
        "a token elsewhere": ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", {"spec": {}}),
        "a legacy token": (
            "POST",
            f"{core}/secrets",
            {"type": "kubernetes.io/service-account-token", "metadata": legacy},
        ),
        "an anchor": ("POST", f"{core}/secrets", {"type": "tokenbroker.dev/anchor", "metadata": anchored}),
        "the secrets": ("GET", f"{core}/secrets", {}),
        "its anchor": ("GET", f"{core}/secrets/{anchor}", {}),
        "a finalizer on its anchor": (
            "PATCH",
            f"{core}/secrets/{anchor}",
            {"metadata": {"finalizers": ["example.com/x"]}},
        ),
        "a pod": ("POST", f"{core}/pods", {"metadata": {"name": "mine"}, "spec": pod}),
        "a deployment": (
            "POST",
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            {"metadata": {"name": "mine"}, "spec": workload},
        ),
        "a job": (
            "POST",
            f"/apis/batch/v1/namespaces/{namespace}/jobs",
            {"metadata": {"name": "mine"}, "spec": {"template": {"spec": pod | {"restartPolicy": "Never"}}}},
        ),
        "a role": ("POST", f"{rbac}/roles", rules),
        "a binding": ("POST", f"{rbac}/rolebindings", binding),
        "a binding everywhere": ("POST", f"{RBAC}/clusterrolebindings", binding),
        "a client": ("POST", f"/apis/tokenbroker.dev/v1alpha1/namespaces/{namespace}/tokenclients", client),
        "a certificate": (
            "POST",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            {"metadata": {"name": f"mine-{account}"}, "spec": csr},
        ),
        "a policy's end": (
            "DELETE",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/tokenbroker-anchors",
            {},
        ),
    }


@dataclass(frozen=True, slots=True)
class Served:
    """A client that is served by default, and what the test tries with its token."""

    limited: Limited
    account: Account
    client: Registered


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(limited: Limited) -> dict[str, Served]:
    """Make clients of such accounts, and one of the ClusterRole ``view``."""
    tenant = await limited.tenant("served")
    made = [await Account.create(tenant, name, *rules) for name, rules in SERVED.items()]
    await tenant.account("view")
    made.append(Account(tenant, "view", await tenant.cluster.token_for("served", "view")))
    await asyncio.gather(*(until_may_read(account) for account in made if account.name == "view"))
    return {account.name: Served(limited, account, await account.client()) for account in made}


async def until_may_read(account: Account) -> None:
    """Wait until a RoleBinding holds."""
    await until(lambda: account.may(rule("list", "pods")), what="view holds")


@pytest.mark.parametrize("name", [*SERVED, "view"])
async def test_no_token_of_a_granted_account_outlives_revoke_all(name: str, served: dict[str, Served]) -> None:
    """Whatever its holder tries before, nothing else that he holds lives on when the client's anchors are deleted."""
    limited, account, client = served[name].limited, served[name].account, served[name].client
    await account.until_condition("Ready", "True", "Ready")
    token = await issued(limited.broker, client)
    [anchor] = await account.anchors("grant")
    for title, (method, path, body) in _attempts("served", name, anchor).items():
        status, answer = await limited.cluster.request(method, path, body or None, token=token)
        assert (status, answer.get("reason")) == (403, "Forbidden"), (title, answer)
    config = limited.cluster.kubeconfig_for(token)
    for who in ("--as=admin", "--as=system:serviceaccount:served:default"):
        with pytest.raises(Exception, match="cannot impersonate"):
            await limited.cluster.kubectl(f"--kubeconfig={config}", who, "get", "pods", "-n", "served")
    await account.tenant.patch(name, {"suspend": True})
    for one in await account.anchors():
        await limited.cluster.request("DELETE", f"/api/v1/namespaces/served/secrets/{one}")
    seconds = await until_dead(limited.cluster, token)

    print(f"\nrevoke-all: {name}: token refused after {seconds:.1f} s")  # noqa: T201
    assert (await ask(limited.broker, client)).body["code"] == "client_suspended"
    assert await account.anchors() == []
