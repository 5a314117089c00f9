"""Lock 3: nobody lets a client use an account for which he could not mint himself. The broker does not run."""

from typing import Any

import pytest
import yaml

from tests.support.bad_specs import DIGEST, OTHER_DIGEST, largest
from tests.support.broker import ROOT, Tenant, token_client
from tests.support.lab import Lab
from tests.support.locks import CLIENT_RULE, User, assert_held, assert_passed, minting

POLICY = "tokenbroker-registration"
CRD = yaml.safe_load((ROOT / "deploy" / "base" / "crd.yaml").read_text())
SPEC = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
GRANT = SPEC["grants"]["items"]["properties"]
ON_CALL = {"kind": "ClusterRole", "name": "tokenbroker-oncall"}


def secret_proof(digest: str) -> dict[str, Any]:
    """Return a proof by a client's secret."""
    return {"clientSecret": {"digests": [digest]}}


def full_spec() -> dict[str, Any]:
    """Return a specification in which all that somebody may want to change is there."""
    grant = {"name": "main", "serviceAccount": {"name": "strong"}, "audiences": ["a"], "vault": {}}
    return {
        "owner": "team",
        "notAfter": "2027-01-01T00:00:00Z",
        "authentication": [secret_proof(DIGEST)],
        "grants": [grant],
    }


_METADATA = ("annotations", "finalizers", "labels", "ownerReferences")


async def registered(tenant: Tenant, **changes: Any) -> str:
    """Register the client ``web`` as a cluster admin and return its path; None leaves a field out."""
    spec = {name: value for name, value in changes.items() if name not in _METADATA}
    wanted = {name: value for name, value in (full_spec() | spec).items() if value is not None}
    body = token_client(tenant.namespace, "web", **wanted)
    body["metadata"] |= {name: value for name, value in changes.items() if name in _METADATA}
    assert_passed(await tenant.cluster.request("POST", tenant.path, body), 201)
    return f"{tenant.path}/web"


@pytest.fixture
async def editor(tenant: Tenant) -> User:
    """Return somebody who may write TokenClients, and mint for the account ``weak`` only."""
    return await User.create(tenant, "editor", CLIENT_RULE, minting(["weak"]))


@pytest.fixture
async def on_call(tenant: Tenant) -> User:
    """Return somebody who holds the role tokenbroker-oncall, and nothing else."""
    user = await User.with_role(tenant, "on-call", ON_CALL)
    await user.until_may({"apiGroups": ["tokenbroker.dev"], "resources": ["tokenclients"], "verbs": ["patch"]})
    return user


async def test_editor_grants_an_account_that_he_could_mint_for(editor: User) -> None:
    """Who may create tokens of an account may let a client do so."""
    body = token_client(editor.namespace, "web", grants=[{"serviceAccount": {"name": "weak"}, "vault": {}}])

    assert_passed(await editor.call("POST", editor.clients, body), 201)
    assert_passed(await editor.call("PATCH", f"{editor.clients}/web", {"spec": {"owner": "me"}}))


async def test_editor_grants_an_account_that_he_could_not_mint_for(editor: User) -> None:
    """The message says which right is missing."""
    body = token_client(editor.namespace, "web", grants=[{"serviceAccount": {"name": "strong"}, "vault": {}}])

    assert_held(
        await editor.call("POST", editor.clients, body), POLICY, "you may not create tokens of the account strong"
    )


async def test_editor_replaces_the_account_of_his_own_client(editor: User) -> None:
    """The new object is what counts: what he could mint for before does not help."""
    body = token_client(editor.namespace, "web", grants=[{"serviceAccount": {"name": "weak"}, "vault": {}}])
    assert_passed(await editor.call("POST", editor.clients, body), 201)
    strong = {"spec": {"grants": [{"serviceAccount": {"name": "strong"}, "vault": {}}]}}

    assert_held(await editor.call("PATCH", f"{editor.clients}/web", strong), POLICY, "account strong")


async def test_editor_puts_a_strong_account_behind_a_weak_one(editor: User) -> None:
    """Each grant is judged."""
    grants = [{"name": account, "serviceAccount": {"name": account}, "vault": {}} for account in ("weak", "strong")]
    body = token_client(editor.namespace, "web", grants=grants)

    assert_held(await editor.call("POST", editor.clients, body), POLICY, "grants[1]")


async def test_editor_changes_only_the_authentication_of_a_strong_client(editor: User, tenant: Tenant) -> None:
    """Whoever says how a client proves itself is that client."""
    path = await registered(tenant)
    mine = {"spec": {"authentication": [secret_proof(OTHER_DIGEST)]}}

    assert_held(await editor.call("PATCH", path, mine), POLICY, "account strong")


async def test_right_of_another_namespace_does_not_count(editor: User, installed: Lab) -> None:
    """What he may mint for is of the namespace where the client is, though the account has the same name elsewhere."""
    other = await Tenant.create(installed.cluster, f"{editor.namespace[:50]}-other")
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{other.namespace}"
    name = {"metadata": {"name": "writer"}}
    await installed.cluster.request("POST", f"{path}/roles", name | {"rules": [CLIENT_RULE]})
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "writer"},
        "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": editor.namespace}],
    }
    await installed.cluster.request("POST", f"{path}/rolebindings", name | binding)
    there = User(editor.cluster, other.namespace, editor.token)
    await there.until_may(CLIENT_RULE)
    body = token_client(other.namespace, "web", grants=[{"serviceAccount": {"name": "weak"}, "vault": {}}])

    assert_held(await there.call("POST", there.clients, body), POLICY, "account weak")


async def test_on_call_suspends_and_cannot_resume(on_call: User, tenant: Tenant) -> None:
    """The switch is pulled without the rights; putting it back would be issuing."""
    path = await registered(tenant)

    assert_passed(await on_call.call("PATCH", path, {"spec": {"suspend": True}}))
    assert_held(await on_call.call("PATCH", path, {"spec": {"suspend": False}}), POLICY, "account strong")
    assert_held(await on_call.call("PATCH", path, {"spec": {"suspend": None}}), POLICY, "account strong")


async def test_on_call_asks_for_new_versions(on_call: User, tenant: Tenant) -> None:
    """Annotations of the broker's own mean nothing to any other program: they pass, suspended or not."""
    path = await registered(tenant, annotations={"team": "shop"})

    for value in ("2027-01-01T00:00:00Z", "2027-01-01T00:00:01Z", None):
        change = {"metadata": {"annotations": {"tokenbroker.dev/rotate-requested": value}}}
        assert_passed(await on_call.call("PATCH", path, change))
        assert_passed(await on_call.call("PATCH", path, change | {"spec": {"suspend": True}}))


NOBODY = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "0a1b"}
METADATA: dict[str, dict[str, Any]] = {
    "owner": {"ownerReferences": [NOBODY]},
    "owner_of_a_version_that_is_not_served": {"ownerReferences": [NOBODY | {"apiVersion": "example.com/v9"}]},
    "lost_owner": {"ownerReferences": None},
    "label": {"labels": {"app.kubernetes.io/instance": "other"}},
    "lost_labels": {"labels": None},
    "annotation": {"annotations": {"argocd.argoproj.io/tracking-id": "other"}},
    "record_of_what_was_applied": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
    "lost_annotations": {"annotations": None},
    "finalizer": {"finalizers": ["example.com/other", "example.com/mine"]},
    "finalizer_that_orphans": {"finalizers": ["example.com/other", "orphan"]},
    "lost_finalizer": {"finalizers": None},
}


@pytest.mark.parametrize("change", METADATA)
@pytest.mark.parametrize("spec", [{}, {"spec": {"suspend": True}}], ids=["alone", "with-suspension"])
async def test_on_call_changes_no_metadata(change: str, spec: dict[str, Any], on_call: User, tenant: Tenant) -> None:
    """An owner that is not there has the client deleted, and labels and annotations tell other programs to do so."""
    _, stays = await tenant.cluster.request("GET", f"/api/v1/namespaces/{tenant.namespace}/serviceaccounts/on-call")
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "on-call", "uid": stays["metadata"]["uid"]}
    here = {"ownerReferences": [owner], "labels": {"team": "shop"}, "annotations": {"team": "shop"}}
    path = await registered(tenant, **here, finalizers=["example.com/other"])

    outcome = await on_call.call("PATCH", path, {"metadata": METADATA[change]} | spec)
    assert_held(outcome, POLICY, "you may not create tokens of the account strong")


async def test_entitled_user_changes_metadata(editor: User, tenant: Tenant) -> None:
    """Who could mint for all its accounts says what belongs to whom, but for the broker's finalizer."""
    path = await registered(tenant, grants=[{"serviceAccount": {"name": "weak"}, "vault": {}}])

    assert_passed(await editor.call("PATCH", path, {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}}))
    assert_passed(await editor.call("PATCH", path, {"metadata": {"finalizers": ["example.com/other"]}}))


async def test_on_call_suspends_whatever_metadata_is_there(on_call: User, tenant: Tenant) -> None:
    """A namespace's owner cannot make judging it cost more than CEL may, and so keep a client from being suspended."""
    many = {f"{number:x}": "" for number in range(20_000)}
    finalizers = [f"example.com/{number:x}" for number in range(10_000)]
    path = await registered(tenant, labels=many, annotations=many, finalizers=finalizers)

    assert_passed(await on_call.call("PATCH", path, {"spec": {"suspend": True}}))


async def test_on_call_suspends_what_was_explicitly_not_suspended(on_call: User, tenant: Tenant) -> None:
    """From false to true is as good as from nothing to true."""
    path = await registered(tenant, suspend=False)

    assert_passed(await on_call.call("PATCH", path, {"spec": {"suspend": True}}))


async def test_on_call_unsuspends_by_leaving_the_field_out(on_call: User, tenant: Tenant) -> None:
    """False and absent are both resumed, and taking "false" away is no suspension either."""
    path = await registered(tenant, suspend=False)

    assert_held(await on_call.call("PATCH", path, {"spec": {"suspend": None}}), POLICY, "account strong")


async def test_entitled_user_resumes(editor: User, tenant: Tenant) -> None:
    """Who could mint for all its accounts puts a client back."""
    path = await registered(tenant, suspend=True, grants=[{"serviceAccount": {"name": "weak"}, "vault": {}}])

    assert_passed(await editor.call("PATCH", path, {"spec": {"suspend": False}}))


CHANGES: dict[str, Any] = {
    "owner": "me",
    "rate": {"perMinute": 6000},
    "notAfter": "2099-01-01T00:00:00Z",
    "authentication": [secret_proof(OTHER_DIGEST)],
    "grants": [{"serviceAccount": {"name": "other"}, "vault": {}}],
}
"""A valid change of each property of the specification."""

GRANT_CHANGES: dict[str, Any] = {
    "name": "renamed",
    "serviceAccount": {"name": "other"},
    "audiences": ["b"],
    "ttl": {"default": "15m", "max": "24h"},
    "vault": {"ttl": "24h"},
    "revocation": "None",
    "reuse": "30s",
    "expect": {"deny": ["get secrets"]},
}
"""The same for each property of a grant."""


@pytest.mark.parametrize("name", sorted(set(SPEC) - {"suspend"}))
@pytest.mark.parametrize("more", [{}, {"suspend": True}], ids=["alone", "with-suspension"])
async def test_on_call_changes_nothing_else_that_the_schema_knows(
    name: str, more: dict[str, Any], on_call: User, tenant: Tenant
) -> None:
    """A property that is new in the schema fails here until CHANGES knows it, and then if it slips through."""
    path = await registered(tenant)

    outcome = await on_call.call("PATCH", path, {"spec": {name: CHANGES[name]} | more})
    assert_held(outcome, POLICY, "you may not create tokens")


@pytest.mark.parametrize("name", sorted(set(SPEC) - {"suspend", "grants"}))
async def test_on_call_removes_nothing_that_is_optional(name: str, on_call: User, tenant: Tenant) -> None:
    """Without an end, an owner or a proof a client is another one, suspended in the same breath or not."""
    path = await registered(tenant, **{name: CHANGES[name]})

    assert_held(await on_call.call("PATCH", path, {"spec": {name: None}}), POLICY, "account strong")
    assert_held(await on_call.call("PATCH", path, {"spec": {name: None, "suspend": True}}), POLICY, "account strong")


@pytest.mark.parametrize("name", sorted(set(SPEC) - {"suspend", "grants"}))
async def test_on_call_adds_nothing_that_was_not_there(name: str, on_call: User, tenant: Tenant) -> None:
    """A proof that slips in with the suspension would be there when somebody resumes."""
    path = await registered(tenant, **{name: None})

    assert_held(await on_call.call("PATCH", path, {"spec": {name: CHANGES[name]}}), POLICY, "account strong")
    assert_held(
        await on_call.call("PATCH", path, {"spec": {name: CHANGES[name], "suspend": True}}), POLICY, "account strong"
    )


@pytest.mark.parametrize("name", sorted(GRANT))
async def test_on_call_changes_nothing_of_a_grant(name: str, on_call: User, tenant: Tenant) -> None:
    """What was said of the specification holds all the way down."""
    path = await registered(tenant)
    [grant] = full_spec()["grants"]
    change = {"grants": [grant | {name: GRANT_CHANGES[name]}], "suspend": True}

    assert_held(await on_call.call("PATCH", path, {"spec": change}), POLICY, "you may not create tokens")


async def test_on_call_adds_and_removes_no_grant(on_call: User, tenant: Tenant) -> None:
    """Neither more nor less."""
    [grant] = full_spec()["grants"]
    path = await registered(tenant, grants=[grant, grant | {"name": "second"}])

    more = [grant, grant | {"name": "second"}, grant | {"name": "third"}]
    assert_held(await on_call.call("PATCH", path, {"spec": {"grants": more}}), POLICY, "account strong")
    assert_held(await on_call.call("PATCH", path, {"spec": {"grants": [grant]}}), POLICY, "account strong")


ACCOUNTS = [grant["serviceAccount"]["name"] for grant in largest()["grants"]]


async def test_largest_client_by_an_entitled_user(tenant: Tenant) -> None:
    """Judging it, when it is made and when it is changed, is within what CEL may cost."""
    user = await User.create(tenant, "entitled", CLIENT_RULE, minting(ACCOUNTS))
    path = f"{user.clients}/web"

    assert_passed(await user.call("POST", user.clients, token_client(tenant.namespace, "web", **largest())), 201)
    assert_passed(await user.call("PATCH", path, {"spec": {"owner": "p" * 253}}))
    assert_passed(await user.call("PATCH", path, {"spec": {"suspend": True}}))
    assert_passed(await user.call("PATCH", path, {"spec": {"suspend": False}}))


async def test_largest_client_is_suspended_by_on_call(on_call: User, tenant: Tenant) -> None:
    """An emergency is no moment to meet a cost limit."""
    body = token_client(tenant.namespace, "web", **largest())
    assert_passed(await tenant.cluster.request("POST", tenant.path, body), 201)

    assert_passed(await on_call.call("PATCH", f"{tenant.path}/web", {"spec": {"suspend": True}}))
    assert_held(await on_call.call("PATCH", f"{tenant.path}/web", {"spec": {"suspend": False}}), POLICY, "grants[0]")


@pytest.mark.parametrize("missing", range(8))
async def test_largest_client_with_one_right_missing(missing: int, tenant: Tenant) -> None:
    """Each of eight accounts counts: seven rights are not enough."""
    rights = [account for number, account in enumerate(ACCOUNTS) if number != missing]
    user = await User.create(tenant, "entitled", CLIENT_RULE, minting(rights))
    outcome = await user.call("POST", user.clients, token_client(tenant.namespace, "web", **largest()))

    assert_held(outcome, POLICY, f"grants[{missing}]: you may not create tokens of the account {ACCOUNTS[missing]}")


def test_as_many_grants_are_judged_as_the_schema_allows() -> None:
    """A ninth grant would be granted unasked."""
    [policy, _] = yaml.safe_load_all((ROOT / "deploy" / "base" / "policies" / "registration.yaml").read_text())
    expressions = [one["expression"] for one in policy["spec"]["validations"]]

    assert SPEC["grants"]["maxItems"] == sum(".check('create')" in one for one in expressions)
    assert f"variables.harmless || size(variables.grants) <= {SPEC['grants']['maxItems']}" in expressions


@pytest.mark.parametrize("namespace", ["kube-system", "tokenbroker"])
async def test_no_client_is_registered_where_nothing_may_be_granted(namespace: str, installed: Lab) -> None:
    """kube-* and the broker's own namespace are refused to everybody, whatever he may do."""
    body = token_client(namespace, "x", grants=[{"serviceAccount": {"name": "x"}, "vault": {}}])
    path = f"/apis/tokenbroker.dev/v1alpha1/namespaces/{namespace}/tokenclients"

    assert_held(await installed.cluster.request("POST", path, body), POLICY, "never granted")
