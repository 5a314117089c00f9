"""What the broker's own account must not be able to do, asked of the real API server with its own credential."""

from typing import Any

import pytest

from tests.support.broker import ACCOUNT, Tenant
from tests.support.lab import Lab

RBAC = "/apis/rbac.authorization.k8s.io/v1"
TOKEN_SPEC = {"spec": {"audiences": [], "expirationSeconds": 600}}


def anchor(name: str = "tokenbroker-anchor-mine", **fields: Any) -> dict[str, Any]:
    """Return the only kind of Secret that the broker may make."""
    return {"apiVersion": "v1", "kind": "Secret", "type": "tokenbroker.dev/anchor", "metadata": {"name": name}} | fields


@pytest.fixture
async def stolen(installed: Lab) -> str:
    """Return the broker's own credential, as a thief would have it."""
    return await installed.cluster.token_for(*ACCOUNT)


@pytest.fixture
async def victim(installed: Lab) -> Tenant:
    """Return a namespace whose owner let the broker mint for the account 'reader', and only that."""
    tenant = await Tenant.create(installed.cluster, "victim")
    await tenant.account("reader")
    await installed.cluster.request(
        "POST", "/api/v1/namespaces/victim/serviceaccounts", {"metadata": {"name": "unregistered"}}
    )
    await installed.cluster.request(
        "POST", "/api/v1/namespaces/victim/secrets", {"metadata": {"name": "foreign"}, "stringData": {"a": "b"}}
    )
    return tenant


FORBIDDEN: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "read_a_secret": ("GET", "/api/v1/namespaces/victim/secrets/foreign", None),
    "list_secrets": ("GET", "/api/v1/namespaces/victim/secrets", None),
    "list_secrets_everywhere": ("GET", "/api/v1/secrets", None),
    "read_its_own_anchor": ("GET", "/api/v1/namespaces/victim/secrets/tokenbroker-anchor-mine", None),
    "mint_for_an_unregistered_account": (
        "POST",
        "/api/v1/namespaces/victim/serviceaccounts/unregistered/token",
        TOKEN_SPEC,
    ),
    "mint_for_the_default_account": ("POST", "/api/v1/namespaces/victim/serviceaccounts/default/token", TOKEN_SPEC),
    "mint_in_another_namespace": ("POST", "/api/v1/namespaces/default/serviceaccounts/reader/token", TOKEN_SPEC),
    "mint_in_kube_system": (
        "POST",
        "/api/v1/namespaces/kube-system/serviceaccounts/generic-garbage-collector/token",
        TOKEN_SPEC,
    ),
    "mint_for_itself": ("POST", "/api/v1/namespaces/tokenbroker/serviceaccounts/tokenbroker/token", TOKEN_SPEC),
    "make_a_role": ("POST", f"{RBAC}/namespaces/victim/roles", {"metadata": {"name": "x"}, "rules": []}),
    "make_a_role_binding": (
        "POST",
        f"{RBAC}/namespaces/victim/rolebindings",
        {
            "metadata": {"name": "x"},
            "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"},
        },
    ),
    "make_a_cluster_role": ("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "x"}, "rules": []}),
    "make_an_account": ("POST", "/api/v1/namespaces/victim/serviceaccounts", {"metadata": {"name": "x"}}),
    "change_its_own_role": ("PATCH", f"{RBAC}/clusterroles/tokenbroker", {"rules": []}),
    "register_a_client": (
        "POST",
        "/apis/tokenbroker.dev/v1alpha1/namespaces/victim/tokenclients",
        {"metadata": {"name": "x"}, "spec": {"grants": [{"serviceAccount": {"name": "reader"}, "vault": {}}]}},
    ),
    "remove_its_own_limits": (
        "DELETE",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/tokenbroker-account",
        None,
    ),
    "delete_its_own_limits_binding": (
        "DELETE",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tokenbroker-account",
        None,
    ),
}


@pytest.mark.usefixtures("victim")
@pytest.mark.parametrize("attempt", FORBIDDEN)
async def test_the_broker_is_forbidden_to(attempt: str, installed: Lab, stolen: str) -> None:
    """RBAC answers 403 to everything that would be more than the broker needs."""
    method, path, body = FORBIDDEN[attempt]

    status, answer = await installed.cluster.request(method, path, body, token=stolen)

    assert (status, answer["reason"]) == (403, "Forbidden")
    assert "tokenbroker:tokenbroker" in answer["message"]


@pytest.mark.parametrize(
    "secret",
    [
        anchor(type="kubernetes.io/service-account-token"),
        anchor(type="Opaque"),
        anchor(data={"a": "Yg=="}),
        anchor(name="another-name"),
    ],
    ids=["legacy-token", "opaque", "with-data", "other-name"],
)
async def test_the_broker_makes_no_secret_but_an_anchor(
    secret: dict[str, Any], installed: Lab, stolen: str, victim: Tenant
) -> None:
    """RBAC allows it to create Secrets there; admission refuses all but empty anchors."""
    if secret["type"] == "kubernetes.io/service-account-token":
        secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "unregistered"}

    status, answer = await installed.cluster.request(
        "POST", f"/api/v1/namespaces/{victim.namespace}/secrets?dryRun=All", secret, token=stolen
    )

    assert status == 422
    assert "tokenbroker-account" in answer["message"]


async def test_the_broker_deletes_no_foreign_secret(installed: Lab, stolen: str, victim: Tenant) -> None:
    """RBAC allows it to delete Secrets there; admission refuses all but anchors."""
    status, answer = await installed.cluster.request(
        "DELETE", f"/api/v1/namespaces/{victim.namespace}/secrets/foreign", token=stolen
    )

    assert status == 422
    assert "the broker deletes anchors only" in answer["message"]


async def test_the_broker_mints_no_token_that_cannot_be_revoked(installed: Lab, stolen: str, victim: Tenant) -> None:
    """A TokenRequest that is not bound to an anchor is refused even for a registered account."""
    status, answer = await installed.cluster.request(
        "POST",
        f"/api/v1/namespaces/{victim.namespace}/serviceaccounts/reader/token",
        {"spec": {"audiences": ["x"], "expirationSeconds": 600}},
        token=stolen,
    )

    assert status == 422
    assert "bound to an anchor" in answer["message"]


async def test_nobody_else_makes_an_anchor(installed: Lab, victim: Tenant) -> None:
    """Even a cluster admin cannot prepare an anchor for the broker to bind to."""
    status, answer = await installed.cluster.request(
        "POST", f"/api/v1/namespaces/{victim.namespace}/secrets?dryRun=All", anchor()
    )

    assert status == 422
    assert "only the broker makes anchors" in answer["message"]


@pytest.mark.parametrize("namespace", ["kube-system", "tokenbroker"])
async def test_no_client_is_registered_where_nothing_may_be_granted(namespace: str, installed: Lab) -> None:
    """kube-* and the broker's own namespace are refused at registration."""
    body = {
        "apiVersion": "tokenbroker.dev/v1alpha1",
        "kind": "TokenClient",
        "metadata": {"name": "x"},
        "spec": {"grants": [{"serviceAccount": {"name": "x"}, "vault": {}}]},
    }

    status, answer = await installed.cluster.request(
        "POST", f"/apis/tokenbroker.dev/v1alpha1/namespaces/{namespace}/tokenclients", body
    )

    assert status == 422
    assert "never granted" in answer["message"]
