"""``tokenbroker doctor --can``: why an account is refused what it asks for (403), on a real API server."""

import pytest
import pytest_asyncio

from tests.support.broker import Tenant
from tests.support.doctor import Told, bound_token, doctor

_RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest_asyncio.fixture(loop_scope="session")
async def token(tenant: Tenant) -> str:
    """Return a good token of the account ``web``."""
    return await bound_token(tenant.cluster, tenant.namespace, "web", "anchor")


async def _ask(tenant: Tenant, token: str, *more: str) -> Told:
    return await doctor(tenant.cluster, "--token-file", "-", *more, stdin=token)


async def test_a_right_that_is_missing(tenant: Tenant, token: str) -> None:
    """An accepted token that may not: 403, with the Role and RoleBinding that mend it, which are then run."""
    wanted = ("--can", f"get pods -n {tenant.namespace}")
    told = await _ask(tenant, token, *wanted)
    for line in told.one("access.can")["mend"].splitlines():
        await tenant.cluster.kubectl(*line.split()[1:])
    mended = await _ask(tenant, token, *wanted)

    assert told.problems == {"access.can"}
    assert "403" in told.text("access.can")
    assert mended.code == 0
    assert "allowed by RoleBinding" in mended.text("access.can")


async def test_rights_of_the_accounts_groups_count(tenant: Tenant, token: str) -> None:
    """What all accounts of the namespace may do, this one may."""
    subject = {
        "kind": "Group",
        "name": f"system:serviceaccounts:{tenant.namespace}",
        "apiGroup": "rbac.authorization.k8s.io",
    }
    role = {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "all"}, "roleRef": role, "subjects": [subject]}
    await tenant.cluster.request("POST", f"{_RBAC}/namespaces/{tenant.namespace}/rolebindings", binding)

    assert (await _ask(tenant, token, "--can", f"list pods -n {tenant.namespace}")).code == 0


async def test_a_binding_to_a_role_that_is_not_there(tenant: Tenant, token: str) -> None:
    """The authorizer says so itself."""
    role = {"kind": "Role", "name": "nowhere", "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": "web", "namespace": tenant.namespace}
    binding = {"metadata": {"name": "broken"}, "roleRef": role, "subjects": [subject]}
    await tenant.cluster.request("POST", f"{_RBAC}/namespaces/{tenant.namespace}/rolebindings", binding)
    told = await _ask(tenant, token, "--can", f"get pods -n {tenant.namespace}")

    assert '"nowhere" not found' in told.text("access.can")


@pytest.mark.parametrize(
    ("asked", "mend"),
    [
        ("get deploy/web -n {}", "role web-get -n {} --verb=get --resource=deployments.apps --resource-name=web"),
        ("get pods --namespace={} --subresource=log", "role web-get -n {} --verb=get --resource=pods/log"),
        ("list pods -A", "clusterrole web-list --verb=list --resource=pods"),
        ("get nodes", "clusterrole web-get --verb=get --resource=nodes"),
        ("get /metrics", "clusterrole web-get --verb=get --non-resource-url=/metrics"),
    ],
)
async def test_what_is_missing_is_asked_for_as_kubectl_takes_it(
    tenant: Tenant, token: str, asked: str, mend: str
) -> None:
    """Short names, subresources, cluster-wide and URLs: kubectl accepts the lines, and then it is allowed."""
    wanted = asked.format(tenant.namespace)
    told = await _ask(tenant, token, "--can", wanted)
    commands = told.one("access.can")["mend"].splitlines()
    for line in commands:
        await tenant.cluster.kubectl(*line.split()[1:])
    mended = await _ask(tenant, token, "--can", wanted)
    for line in commands:
        if "cluster" in line:
            await tenant.cluster.kubectl("delete", *line.split()[2:4])

    assert commands[0] == f"kubectl create {mend.format(tenant.namespace)}"
    assert told.code == 1
    assert mended.code == 0


@pytest.mark.parametrize(
    "asked", ["create pods -n {}", "get secrets/one -n {}", "patch namespaces/{}", "bind clusterroles", "* * -A"]
)
async def test_what_would_make_the_account_strong_is_not_offered(tenant: Tenant, token: str, asked: str) -> None:
    """The broker would refuse an account that did as it was told."""
    told = await _ask(tenant, token, "--can", asked.format(tenant.namespace))
    mend = told.one("access.can")["mend"]

    assert told.problems == {"access.can"}
    assert "kubectl" not in mend
    assert "the account would be strong, for it may" in mend
    assert f"in the namespace {tenant.namespace} (limits" in mend


@pytest.mark.parametrize("asked", ["get", "get 'pods", "get pod -x", "get podz", "get /x --subresource=y"])
async def test_what_cannot_be_asked_is_refused(tenant: Tenant, token: str, asked: str) -> None:
    """With the nearest right answer, where there is one."""
    told = await _ask(tenant, token, "--can", asked)

    assert told.code == 2
    assert "--can" in told.stderr
