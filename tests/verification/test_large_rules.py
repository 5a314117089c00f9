"""Accounts with more rules than are read: strong whatever they give, and ordinary ones are far from it."""

import orjson

from broker.kube.access import MAX_REVIEW_BYTES
from tests.support.accounts import GROUP, RULES, Account, rule, until_dead, until_issued, until_refused
from tests.support.locks import RBAC
from tests.support.processes import until
from tests.verification.conftest import Limited


async def test_right_behind_more_rules_than_are_read(limited: Limited) -> None:
    """A large Role is repeated for each of its bindings: what is hidden behind them makes strong, within one look."""
    account = await Account.create(await limited.tenant("too-large"), "hides", rule("get,list", "pods"))
    client = await account.client()
    token = await until_issued(limited.broker, client)
    path = f"{RBAC}/namespaces/too-large"
    role = {**rule("get", "pods"), "resourceNames": [f"pod-{number:06}" for number in range(60_000)]}
    await limited.cluster.request("POST", f"{path}/roles", {"metadata": {"name": "large"}, "rules": [role]})
    for number in range(10):
        await _bind(account, f"large-{number}", {"kind": "Role", "name": "large", "apiGroup": GROUP})
    await account.grant("hidden", rule("list", "secrets"))
    await account.touch()
    await until_refused(limited.broker, client, "account_too_strong")
    await until_dead(limited.cluster, token)
    condition = await account.until_condition("Ready", "False", "AccountTooStrong")

    assert "it may do what rules of more than 1 MiB say, which is more than is looked at" in condition["message"]


async def test_all_roles_that_kubernetes_brings_along_are_read(limited: Limited) -> None:
    """An account that has them all is strong by its rules, not by how many there are."""
    account = await Account.create(await limited.tenant("all-roles"), "all")
    _, found = await limited.cluster.request("GET", f"{RBAC}/clusterroles")
    names = {role["metadata"]["name"] for role in found["items"]} - {"cluster-admin"}
    for name in sorted(names):
        await _bind(account, name, {"kind": "ClusterRole", "name": name, "apiGroup": GROUP})
    await until(lambda: account.may(rule("create", "pods")), what="edit holds")
    _, review = await limited.cluster.request("POST", RULES, {"spec": {"namespace": "all-roles"}}, token=account.token)
    client = await account.client()
    await until_refused(limited.broker, client, "account_too_strong")
    condition = await account.until_condition("Ready", "False", "AccountTooStrong")

    size = len(orjson.dumps(review))
    print(f"\nrules of {len(names)} ClusterRoles: {size} bytes")  # noqa: T201
    assert "(by the rule " in condition["message"]
    assert size < MAX_REVIEW_BYTES / 8


async def _bind(account: Account, name: str, role: dict[str, str]) -> None:
    subject = {"kind": "ServiceAccount", "name": account.name, "namespace": account.tenant.namespace}
    binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    path = f"{RBAC}/namespaces/{account.tenant.namespace}/rolebindings"
    status, answer = await account.tenant.cluster.request("POST", path, binding)
    assert status == 201, answer
