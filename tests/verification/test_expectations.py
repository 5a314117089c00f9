"""What a grant says that its account may and may not do: held on the real API server, from then on."""

import asyncio
from typing import Any

import pytest

from tests.support.accounts import Account, issued, rule, until_dead, until_issued, until_refused, works
from tests.support.locks import RBAC, Rule
from tests.support.processes import until
from tests.verification.conftest import Limited

READS_PODS = rule("get,list", "pods")

FALSE_PASSES: dict[str, tuple[list[str], Rule, dict[str, Any]]] = {
    "all-accounts": (["list configmaps"], rule("list", "configmaps"), {"group": "system:serviceaccounts"}),
    "accounts-here": (["get services"], rule("get", "services"), {"group": "system:serviceaccounts:{}"}),
    "authenticated": (["get endpoints"], rule("get", "endpoints"), {"group": "system:authenticated"}),
    "list-for-get": (["get configmaps"], rule("list", "configmaps"), {}),
    "watch-for-get": (["get configmaps"], rule("watch", "configmaps"), {}),
    "one-name": (["get configmaps"], rule("get", "configmaps", name="only"), {}),
    "all-for-one-name": (["get configmaps/mine"], rule("get", "configmaps"), {}),
    "list-for-one-name": (["get configmaps/mine"], rule("list", "configmaps"), {}),
    "patch-for-update": (["update configmaps"], rule("patch", "configmaps"), {}),
    "wildcard-verb": (["delete services"], rule("*", "services"), {}),
    "subresource": (["get pods --subresource=log"], rule("get", "pods/log"), {}),
    "events": (["get events"], rule("get", "events", "events.k8s.io"), {}),
    "events-events": (["list events.events.k8s.io"], rule("list", "events"), {}),
    "eviction": (["delete pods"], rule("create", "pods/eviction"), {}),
    "anything-evicted": (["delete *"], rule("create", "pods/eviction"), {}),
    "anything": (["* *"], rule("get", "services"), {}),
    "nodes-everywhere": (["get nodes"], rule("list", "nodes"), {"everywhere": True}),
    "own-namespace": (["get namespaces"], rule("get", "namespaces"), {}),
    "own-namespace-by-name": (
        ["delete namespaces"],
        rule("delete", "namespaces", name="deny-own-namespace-by-name"),
        {},
    ),
    "own-namespace-watched": (["list namespaces"], rule("watch", "namespaces"), {}),
    "own-namespace-status": (["get namespaces/deny-own-namespace-status"], rule("get", "namespaces/status"), {}),
    "urls": (
        ["get /metrics"],
        {"nonResourceURLs": ["/metrics", "/metrics/*"], "verbs": ["get"]},
        {"everywhere": True},
    ),
}
"""What is denied, and a right that a hasty check would not see."""


@pytest.mark.parametrize("case", FALSE_PASSES)
async def test_deny_does_not_pass_falsely(case: str, limited: Limited) -> None:
    """The client is refused, the condition names the rule that covers it, and nothing is left to end."""
    deny, right, how = FALSE_PASSES[case]
    account = await Account.create(await limited.tenant(f"deny-{case}"), "reader")
    if "group" in how:
        how = {"everywhere": False, "group": how["group"].format(account.tenant.namespace)}
    await account.grant("more", right, **how)
    client = await account.client(expect={"deny": deny})
    reply = await until_refused(limited.broker, client, "access_not_as_declared")
    verified = await account.until_condition("AccessVerified", "False", "AccessNotAsDeclared")
    await account.until_condition("Ready", "False", "AccessNotAsDeclared")

    assert reply.status == 403
    assert f"deny {deny[0]!r} does not hold: the rule" in verified["message"]
    for word in right.get("resources", right.get("nonResourceURLs", [])):
        assert f'"{word}"' in verified["message"]
    await account.until_without_anchors()
    assert len(await account.events("AccessNotAsDeclared")) == 1


@pytest.mark.parametrize("part", ["", "/status", "/finalize"])
async def test_a_role_lets_its_account_write_the_labels_of_its_namespace(part: str, limited: Limited) -> None:
    """The API server decides on a Namespace in itself, and each part writes labels: so denying it finds the Role."""
    tenant = await limited.tenant("own-labels")
    path, verb = f"/api/v1/namespaces/own-labels{part}", "update"
    account = await Account.create(tenant, f"writer{part.replace('/', '-')}")
    await account.grant("more", {**rule(verb, f"namespaces{part}"), "resourceNames": ["own-labels"]}, wait=False)
    denied = await account.client(expect={"deny": ["patch namespaces"]})
    await until_refused(limited.broker, denied, "access_not_as_declared")
    verified = await account.until_condition("AccessVerified", "False", "AccessNotAsDeclared")
    _, namespace = await limited.cluster.request("GET", "/api/v1/namespaces/own-labels")
    labels = {**namespace["metadata"]["labels"], "tokenbroker.dev/unbound-tokens": "allowed"}
    body = {**namespace, "metadata": {"name": "own-labels", "labels": labels}}
    status, written = await limited.cluster.request("PUT", path, body, token=account.token)
    _, found = await limited.cluster.request("GET", "/api/v1/namespaces/own-labels")

    assert f'Resources:["namespaces{part}"]' in verified["message"]
    assert status == 200, written
    assert found["metadata"]["labels"]["tokenbroker.dev/unbound-tokens"] == "allowed"
    patch = {"metadata": {"labels": {"tokenbroker.dev/unbound-tokens": None}}}
    await limited.cluster.request("PATCH", "/api/v1/namespaces/own-labels", patch)


async def test_a_role_gives_no_right_to_list_or_make_namespaces(limited: Limited) -> None:
    """Nor on others: such requests are decided for the whole cluster, so denying them holds."""
    tenant = await limited.tenant("other-namespaces")
    account = await Account.create(tenant, "reader")
    verbs = "list,create,deletecollection"
    await account.grant("more", rule(verbs, "namespaces"), rule("get,patch", "namespaces", name="default"), wait=False)
    client = await account.client(
        expect={
            "allow": ["get /version"],
            "deny": ["list namespaces", "create namespaces", "get namespaces", "patch namespaces/default"],
        }
    )
    await until_refused(limited.broker, client, "account_too_strong")  # by the name that it may patch
    await account.take("more")
    await account.grant("less", rule(verbs, "namespaces"), rule("get", "namespaces", name="default"), wait=False)
    await account.touch()
    await account.until_condition("AccessVerified", "True", "Verified")
    tried = [
        await limited.cluster.request(method, path, body, token=account.token)
        for method, path, body in (
            ("GET", "/api/v1/namespaces", None),
            ("GET", "/api/v1/namespaces?fieldSelector=metadata.name%3Dother-namespaces", None),
            ("POST", "/api/v1/namespaces", {"metadata": {"name": "made"}}),
            ("DELETE", "/api/v1/namespaces", None),
            ("GET", "/api/v1/namespaces/default", None),
            ("GET", "/api/v1/namespaces/other-namespaces", None),
        )
    ]

    assert [status for status, _ in tried] == [403] * 6


async def test_a_role_in_another_namespace_gives_rights_on_that_one(limited: Limited) -> None:
    """Which the rules of the client's own do not show: the authorizer is asked."""
    account = await Account.create(await limited.tenant("one-namespace"), "reader")
    there, name = f"{RBAC}/namespaces/{(await limited.tenant('another')).namespace}", "for-one"
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "one-namespace"}
    role = {"kind": "Role", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    made = {"metadata": {"name": name}, "rules": [rule("get", "namespaces")]}
    await limited.cluster.request("POST", f"{there}/roles", made)
    binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    await limited.cluster.request("POST", f"{there}/rolebindings", binding)

    async def reads() -> bool:
        path = "/api/v1/namespaces/another"
        return (await limited.cluster.request("GET", path, token=account.token))[0] == 200

    await until(reads, what="the account reads the other Namespace")
    client = await account.client(expect={"deny": ["get namespaces/another"]})
    await until_refused(limited.broker, client, "access_not_as_declared")
    verified = await account.until_condition("AccessVerified", "False", "AccessNotAsDeclared")

    assert "the API server's authorizer allows it" in verified["message"]


async def test_what_is_expected_about_its_own_namespace(limited: Limited) -> None:
    """A Role gives it, and it is not asked about as one of the whole cluster."""
    tenant = await limited.tenant("expects-its-own")
    account = await Account.create(tenant, "reader")
    await account.grant("more", rule("get,watch", "namespaces"), wait=False)
    await account.client(expect={"allow": ["get namespaces/expects-its-own"], "deny": ["delete namespaces"]})
    await account.until_condition("AccessVerified", "True", "Verified")
    path = "/api/v1/namespaces/expects-its-own"
    status, _ = await limited.cluster.request("GET", path, token=account.token)

    assert status == 200


async def test_many_names_are_no_pass_and_hold_up_nobody(limited: Limited) -> None:
    """A Role of 500 names under sixteen denials: it cannot be told, the message says why, and others are served."""
    tenant = await limited.tenant("many-names")
    account = await Account.create(tenant, "reader", READS_PODS)
    names = {"resourceNames": [f"node-{number}" for number in range(500)]}
    await account.grant("more", {**rule("*", "nodes"), **names}, wait=False)
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    client = await account.client(expect={"deny": [f"{verb} {word}" for verb in verbs for word in ("nodes", "no")]})
    condition = await account.until_condition("AccessVerified", "Unknown", "RulesIncomplete", seconds=20)

    assert "could not be verified: it would take more than 100 questions to the API server." in condition["message"]
    assert await works(limited.cluster, await issued(limited.broker, client))


async def test_what_is_expected_and_so(limited: Limited) -> None:
    """Rules for other things, and for cluster-scoped resources by a binding that does not reach them, break nothing."""
    account = await Account.create(
        await limited.tenant("as-expected"), "reader", READS_PODS, rule("get,list", "nodes"), rule("get", "services")
    )
    client = await account.client(
        expect={
            "allow": ["list pods", "get pods/web", "get /version"],
            "deny": ["get secrets", "create pods", "get nodes", "get configmaps", "get pods --subresource=exec"],
        }
    )
    await account.until_condition("Ready", "True", "Ready")
    await account.until_condition("AccessVerified", "True", "Verified")

    assert (await account.grants())[0]["strong"] is False
    assert await works(limited.cluster, await issued(limited.broker, client))


async def test_denied_right_that_is_added_ends_all_tokens_and_comes_back(limited: Limited) -> None:
    """Those in Vault, too. When the right is taken away again, the broker issues, and renews what is in Vault."""
    account = await Account.create(await limited.tenant("added-right"), "reader", READS_PODS)
    client = await account.client(expect={"deny": ["get configmaps"]}, vault={"ttl": "1h"})
    await account.until_condition("Ready", "True", "Ready")
    await account.until_condition("VaultSynced", "True", "Synced")
    handed, kept = await issued(limited.broker, client), await in_vault(limited, account)
    await account.grant("more", rule("list", "configmaps"))
    await account.touch()
    ended = await asyncio.gather(until_dead(limited.cluster, handed), until_dead(limited.cluster, kept))
    await until_refused(limited.broker, client, "access_not_as_declared")
    message = (await account.until_condition("AccessVerified", "False", "AccessNotAsDeclared"))["message"]
    await account.until_without_anchors()
    print(f"\nadded right: handed out {ended[0]:.1f} s, in Vault {ended[1]:.1f} s after the spec was touched")  # noqa: T201

    assert 'Resources:["configmaps"]' in message
    await account.take("more")
    await account.until_condition("Ready", "True", "Ready", seconds=90)
    await account.until_condition("AccessVerified", "True", "Verified")
    assert await works(limited.cluster, await issued(limited.broker, client))

    async def renewed() -> bool:
        return await works(limited.cluster, await in_vault(limited, account))

    await until(renewed, what="Vault holds a token that works")


async def test_missing_right_warns_and_is_served(limited: Limited) -> None:
    """A failed allow is a warning, named in the condition and told once; a Role added later mends it."""
    account = await Account.create(await limited.tenant("missing-right"), "reader", rule("get", "pods", name="web"))
    client = await account.client(expect={"allow": ["get pods", "list services"]})
    await account.until_condition("Ready", "True", "Ready")
    missing = await account.until_condition("AccessVerified", "False", "AccessMissing")
    await account.touch("again")
    token = await issued(limited.broker, client)

    assert "allow 'get pods' does not hold: no rule allows it." in missing["message"]
    assert "allow 'list services' does not hold" in missing["message"]
    assert await works(limited.cluster, token)
    [event] = await account.events("AccessMissing")
    assert event["type"] == "Warning"
    await account.grant("more", rule("get", "pods"), rule("list", "services"))
    await account.touch()
    await account.until_condition("AccessVerified", "True", "Verified")
    assert await works(limited.cluster, token)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("allow", "list pod.apps"),
        ("allow", "fly pods"),
        ("deny", "get sprockets"),
        ("deny", "get deployments.extensions"),
        ("deny", "create pods --subresource=exe"),
    ],
)
async def test_expectation_that_means_nothing_here_is_no_pass(kind: str, text: str, limited: Limited) -> None:
    """An unknown resource, group, verb or subresource: AccessVerified is Unknown, with the words; others still hold."""
    tenant = await limited.tenant(f"unknown-{kind}-{sum(text.encode())}")
    account = await Account.create(tenant, "reader", READS_PODS)
    client = await account.client(expect={kind: [text]})
    await account.until_condition("Ready", "True", "Ready")
    unknown = await account.until_condition("AccessVerified", "Unknown", "RulesIncomplete")
    await tenant.patch("reader", {"grants": [_expecting(account, kind, [text, "get pods"])]})

    assert repr(text) in unknown["message"]
    if kind == "deny":
        await until_refused(limited.broker, client, "access_not_as_declared")
    else:
        await until_issued(limited.broker, client)


def _expecting(account: Account, kind: str, texts: list[str]) -> dict[str, Any]:
    return {"serviceAccount": {"name": account.name}, "expect": {kind: texts}}


async def in_vault(limited: Limited, account: Account) -> str:
    """Return the token that a reader of Vault gets."""
    path = f"secret/data/tokenbroker/lab/{account.tenant.namespace}/{account.name}/default"
    status, answer = await limited.lab.vault.api("GET", path)
    assert status == 200, answer
    return str(answer["data"]["data"]["token"])
