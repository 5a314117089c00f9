"""Deleting and patching read: the API server answers with the whole object, also on a dry run that changes nothing."""

import base64

import pytest

from broker.model.access import parse_action, read_review
from broker.model.expectations import Outcome, verify
from broker.model.strength import strong_reasons
from tests.integration.test_access import discovered
from tests.support.broker import Tenant
from tests.support.locks import Thief, User, assert_held

CONTENT = base64.b64encode(b"hidden").decode()
WAYS: dict[str, tuple[str, str, dict[str, str] | None]] = {
    "patch": ("PATCH", "/mine", {}),
    "delete in the foreground": ("DELETE", "/mine?dryRun=All&propagationPolicy=Foreground", None),
    "delete and orphan": ("DELETE", "/mine?dryRun=All&propagationPolicy=Orphan", None),
    "deletecollection": ("DELETE", "?dryRun=All", None),
}


async def _hide(tenant: Tenant) -> str:
    """Make a Secret and return where it is."""
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets"
    await tenant.cluster.request("POST", path, {"metadata": {"name": "mine"}, "data": {"key": CONTENT}})
    return path


@pytest.mark.parametrize("way", WAYS)
async def test_who_may_only_change_secrets_reads_them(tenant: Tenant, way: str) -> None:
    """So such a right breaks `deny: ["get secrets"]`, and makes an account strong; the Secret is as it was."""
    path = await _hide(tenant)
    verb = way.split(maxsplit=1)[0]
    user = await User.create(tenant, "changer", {"apiGroups": [""], "resources": ["secrets"], "verbs": [verb]})
    method, query, body = WAYS[way]
    status, answer = await user.call(method, path + query, body)
    review = {"spec": {"namespace": tenant.namespace}}
    _, seen = await user.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    rules = read_review(seen["status"])
    denied = parse_action("get secrets").resolved(await discovered(tenant.cluster))
    plain, _ = await user.call("GET", f"{path}/mine")
    after, _ = await tenant.cluster.request("GET", f"{path}/mine")

    assert (status, plain, after) == (200, 403, 200)
    assert CONTENT in str(answer)
    assert verify([], [denied], rules, tenant.namespace)[0].outcome is Outcome.FAILED
    assert [reason.what for reason in strong_reasons(rules)] == [f"{verb} secrets"]


@pytest.mark.parametrize("way", ["delete in the foreground", "delete and orphan"])
async def test_stolen_credential_reads_no_secret_by_deleting_it(thief: Thief, way: str) -> None:
    """RBAC lets it delete Secrets where it mints; only admission keeps it from reading all of them that way."""
    path = await _hide(thief.tenant)
    method, query, body = WAYS[way]
    outcome = await thief.call(method, path + query, body)

    assert_held(outcome, "tokenbroker-secrets", "deletes anchors only")
    assert CONTENT not in str(outcome)
