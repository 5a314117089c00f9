"""Lock 1: what RBAC refuses to a thief of the broker's credential, and to others. The broker does not run."""

from typing import Any

import pytest

from tests.support.kubectl import KubectlError
from tests.support.lab import Lab
from tests.support.locks import RBAC, Thief, User, assert_forbidden

BROKER = "system:serviceaccount:tokenbroker:tokenbroker"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/tokenbroker/leases"
MINE = {"metadata": {"name": "mine"}}
VIEW = {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}
ALL = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
POLICIES = ["tokens", "secrets", "clients", "registration", "anchors"]

FORBIDDEN: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "read_a_secret": ("GET", "{core}/secrets/foreign", None),
    "list_secrets": ("GET", "{core}/secrets", None),
    "watch_secrets": ("GET", "{core}/secrets?watch=true", None),
    "list_secrets_everywhere": ("GET", "/api/v1/secrets", None),
    "read_its_own_anchor": ("GET", "{core}/secrets/tokenbroker-anchor-mine", None),
    "read_secrets_of_its_own_namespace": ("GET", "/api/v1/namespaces/tokenbroker/secrets/tokenbroker-tls", None),
    "delete_secrets_of_its_own_namespace": ("DELETE", "/api/v1/namespaces/tokenbroker/secrets/tokenbroker-tls", None),
    "change_a_secret": ("PATCH", "{core}/secrets/tokenbroker-anchor-mine", {"metadata": {"labels": {"a": "b"}}}),
    "delete_all_secrets": ("DELETE", "{core}/secrets", None),
    "make_a_secret_where_no_client_is": ("POST", "/api/v1/namespaces/default/secrets", MINE),
    "make_a_role": ("POST", "{rbac}/roles", MINE | {"rules": []}),
    "make_a_role_binding": ("POST", "{rbac}/rolebindings", MINE | {"roleRef": VIEW}),
    "make_a_cluster_role": ("POST", f"{RBAC}/clusterroles", MINE | {"rules": [ALL]}),
    "make_a_cluster_role_binding": ("POST", f"{RBAC}/clusterrolebindings", MINE | {"roleRef": VIEW}),
    "change_its_own_role": ("PATCH", f"{RBAC}/clusterroles/tokenbroker", {"rules": [ALL]}),
    "change_its_own_binding": ("PATCH", f"{RBAC}/clusterrolebindings/tokenbroker", {"subjects": []}),
    "change_what_may_be_minted": ("PATCH", "{rbac}/roles/tokenbroker-mint-reader", {"rules": [ALL]}),
    "make_an_account": ("POST", "{core}/serviceaccounts", MINE),
    "change_an_account": ("PATCH", "{core}/serviceaccounts/reader", {"metadata": {"labels": {"a": "b"}}}),
    "make_a_pod": ("POST", "{core}/pods", MINE | {"spec": {"containers": []}}),
    "opt_a_namespace_in": (
        "PATCH",
        "/api/v1/namespaces/default",
        {"metadata": {"labels": {"tokenbroker.dev/clients": "enabled"}}},
    ),
    "register_a_client": (
        "POST",
        "{clients}",
        MINE | {"spec": {"grants": [{"serviceAccount": {"name": "reader"}, "vault": {}}]}},
    ),
    "delete_a_client": ("DELETE", "{clients}/web", None),
    "delete_all_clients": ("DELETE", "{clients}", None),
    "change_the_schema_of_clients": (
        "PATCH",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tokenclients.tokenbroker.dev",
        {"spec": {"scope": "Cluster"}},
    ),
    "read_another_lease": ("GET", f"{LEASES}/other", None),
    "take_another_lease": ("PUT", f"{LEASES}/other", {"metadata": {"name": "other"}}),
    "delete_its_lease": ("DELETE", f"{LEASES}/tokenbroker-leader", None),
    "take_a_lease_elsewhere": ("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", MINE),
    "have_a_certificate_signed": (
        "POST",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        MINE | {"spec": {"request": "", "signerName": "kubernetes.io/kube-apiserver-client"}},
    ),
    "add_a_policy": ("POST", f"{ADMISSION}/validatingadmissionpolicies", MINE),
    "add_a_webhook": ("POST", f"{ADMISSION}/mutatingwebhookconfigurations", MINE),
}
_LIMITS = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
REMOVED: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    f"{verb}_{resource}_{policy}": (verb, f"{ADMISSION}/{resource}/tokenbroker-{policy}", body)
    for resource in _LIMITS
    for policy in POLICIES
    for verb, body in (("GET", None), ("DELETE", None), ("PATCH", {"spec": {"validationActions": ["Audit"]}}))
}


@pytest.mark.parametrize("attempt", FORBIDDEN | REMOVED)
async def test_stolen_credential_may_not(attempt: str, thief: Thief) -> None:
    """RBAC answers 403 to everything that would be more than the broker needs, its own limits among it."""
    method, path, body = (FORBIDDEN | REMOVED)[attempt]
    names = {"core": thief.core, "clients": thief.tenant.path, "rbac": f"{RBAC}/namespaces/{thief.tenant.namespace}"}

    assert_forbidden(await thief.call(method, path.format(**names), body), BROKER)


async def test_stolen_credential_applies_no_new_client(thief: Thief) -> None:
    """Server-side apply would make what is not there: "patch" alone is not enough for that."""
    cluster = thief.tenant.cluster
    manifest = f"""
apiVersion: tokenbroker.dev/v1alpha1
kind: TokenClient
metadata: {{name: new, namespace: {thief.tenant.namespace}}}
spec: {{grants: [{{serviceAccount: {{name: reader}}, vault: {{}}}}]}}
"""
    kubectl = cluster.kubectl.with_kubeconfig(cluster.kubeconfig_for(thief.token))

    with pytest.raises(KubectlError, match=f'"{BROKER}" cannot create resource "tokenclients"'):
        await kubectl("apply", "--server-side", "--validate=false", "-f", "-", input=manifest)


async def test_stolen_credential_is_nobody_else(thief: Thief) -> None:
    """It may not act as another user."""
    cluster = thief.tenant.cluster
    kubectl = cluster.kubectl.with_kubeconfig(cluster.kubeconfig_for(thief.token))

    with pytest.raises(KubectlError, match=f'"{BROKER}" cannot impersonate'):
        await kubectl("get", "secrets", "-n", thief.tenant.namespace, "--as=admin")


async def test_namespace_admin_cannot_opt_in(thief: Thief) -> None:
    """Whether clients may be granted anything in a namespace is the operator's word, not its admin's."""
    user = await User.with_role(thief.tenant, "boss", {"kind": "ClusterRole", "name": "admin"})
    change = {"metadata": {"labels": {"tokenbroker.dev/unbound-tokens": "allowed"}}}
    outcome = await user.call("PATCH", f"/api/v1/namespaces/{thief.tenant.namespace}", change)

    assert_forbidden(outcome, f"system:serviceaccount:{thief.tenant.namespace}:boss")


async def test_on_call_role_is_bound_to_nobody(installed: Lab) -> None:
    """deploy/ gives it to nobody: whom it is for, the operator says."""
    bound = [
        binding["metadata"]["name"]
        for kind in ("clusterrolebindings", "rolebindings")
        for binding in (await installed.cluster.request("GET", f"{RBAC}/{kind}"))[1]["items"]
        if binding["roleRef"]["name"] == "tokenbroker-oncall" and not binding["metadata"]["name"].startswith("user-")
    ]

    assert bound == []
