"""Lock 3: who takes the broker's finalizer off a TokenClient, whose tokens live on if nobody waits for their end.

The broker does not run.
"""

from typing import Any

import pytest
import yaml

from tests.support.broker import Tenant, token_client
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.locks import CLIENT_RULE, Thief, User, assert_held, assert_passed, minting
from tests.support.processes import until

POLICY, WORDS = "tokenbroker-registration", "finalizer tokenbroker.dev/anchors is the broker's"
OURS, OTHER = "tokenbroker.dev/anchors", "example.com/other"
FINALIZING = {"apiGroups": ["tokenbroker.dev"], "resources": ["tokenclients/finalizers"], "verbs": ["update"]}


@pytest.fixture
async def owner(tenant: Tenant) -> User:
    """Return somebody who may write TokenClients and mint for the account ``reader``, as a namespace's admin."""
    return await User.create(tenant, "owner", CLIENT_RULE, minting(["reader"]))


def manifest(namespace: str, **metadata: Any) -> dict[str, Any]:
    """Return the client ``web`` as its owner would have it in a file."""
    body = token_client(namespace, "web", grants=[{"serviceAccount": {"name": "reader"}, "vault": {}}])
    body["metadata"] |= metadata
    return body


async def registered(tenant: Tenant, *finalizers: str) -> str:
    """Register the client ``web``, as it is when a broker has looked at it, and return its path."""
    body = manifest(tenant.namespace, finalizers=[OURS, *finalizers])
    assert_passed(await tenant.cluster.request("POST", tenant.path, body), 201)
    return f"{tenant.path}/web"


def kubectl_of(user: User) -> Kubectl:
    """Return kubectl as a user."""
    return user.cluster.kubectl.with_kubeconfig(user.cluster.kubeconfig_for(user.token))


LOST: dict[str, list[str] | None] = {"all": None, "ours": [OTHER], "replaced": [OTHER, "tokenbroker.dev/anchor"]}


@pytest.mark.parametrize("lost", LOST)
async def test_owner_takes_the_finalizer_off(lost: str, owner: User, tenant: Tenant) -> None:
    """Though he may mint for all its accounts: the broker has tokens of others to end, too."""
    path = await registered(tenant, OTHER)

    outcome = await owner.call("PATCH", path, {"metadata": {"finalizers": LOST[lost]}})
    assert_held(outcome, POLICY, WORDS)


@pytest.mark.parametrize("change", [{}, {"spec": {"suspend": True}}], ids=["alone", "with-suspension"])
async def test_on_call_takes_the_finalizer_off(change: dict[str, Any], tenant: Tenant) -> None:
    """The switch is all that on-call has."""
    on_call = await User.with_role(tenant, "on-call", {"kind": "ClusterRole", "name": "tokenbroker-oncall"})
    await on_call.until_may(CLIENT_RULE | {"verbs": ["patch"]})
    path = await registered(tenant)

    outcome = await on_call.call("PATCH", path, {"metadata": {"finalizers": None}} | change)
    assert_held(outcome, POLICY, WORDS)


async def test_client_that_is_orphaned_waits_for_the_broker(owner: User, thief: Thief) -> None:
    """What was tried: off with the finalizer, and the anchors orphaned. Only the broker lets the client go."""
    tenant = thief.tenant
    path = await registered(tenant)
    assert_passed(await owner.call("DELETE", path, {"propagationPolicy": "Orphan"}))

    assert_held(await owner.call("PATCH", path, {"metadata": {"finalizers": None}}), POLICY, WORDS)
    await until(lambda: _finalizers_are(owner, path, [OURS]), what="the collector has orphaned", seconds=90)
    assert_passed(await thief.call("PATCH", path, {"metadata": {"finalizers": None}}))
    assert_passed(await owner.call("GET", path), 404)


async def _finalizers_are(user: User, path: str, wanted: list[str]) -> bool:
    _, client = await user.call("GET", path)
    return bool(client["metadata"].get("finalizers") == wanted)


async def test_who_may_finalize_takes_it_off(tenant: Tenant) -> None:
    """Kubernetes' own right for this, without one to mint; the cluster's admins have it, too."""
    user = await User.create(tenant, "janitor", CLIENT_RULE, FINALIZING)
    path = await registered(tenant, OTHER)

    assert_passed(await user.call("PATCH", path, {"metadata": {"finalizers": [OTHER]}}))
    assert_passed(await user.call("PATCH", path, {"metadata": {"finalizers": [OURS, OTHER]}}))
    assert_passed(await tenant.cluster.request("PATCH", path, {"metadata": {"finalizers": None}}))


async def test_who_may_finalize_one_client_by_name(tenant: Tenant) -> None:
    """The right is asked for by the client's name, and counts for that one."""
    user = await User.create(tenant, "janitor", CLIENT_RULE, FINALIZING | {"resourceNames": ["web"]})
    body = manifest(tenant.namespace, name="other", finalizers=[OURS])
    assert_passed(await tenant.cluster.request("POST", tenant.path, body), 201)
    path = await registered(tenant)

    assert_passed(await user.call("PATCH", path, {"metadata": {"finalizers": None}}))
    outcome = await user.call("PATCH", f"{tenant.path}/other", {"metadata": {"finalizers": None}})
    assert_held(outcome, POLICY, WORDS)


async def test_who_may_finalize_changes_nothing_else(tenant: Tenant) -> None:
    """It is no right to register: labels and the specification take the one to mint."""
    user = await User.create(tenant, "janitor", CLIENT_RULE, FINALIZING)
    path = await registered(tenant)

    for change in ({"metadata": {"labels": {"a": "b"}}}, {"spec": {"owner": "me"}}):
        assert_held(await user.call("PATCH", path, change), POLICY, "account reader")


async def test_namespace_admin_may_not_finalize(tenant: Tenant) -> None:
    """The aggregated role ends with TokenClients: their finalizer is the cluster admins' to take off."""
    boss = await User.with_role(tenant, "boss", {"kind": "ClusterRole", "name": "admin"})
    await boss.until_may(CLIENT_RULE)
    path = await registered(tenant)

    assert_held(await boss.call("PATCH", path, {"metadata": {"finalizers": None}}), POLICY, WORDS)


async def test_kubectl_leaves_the_finalizer_on(owner: User, tenant: Tenant) -> None:
    """The owner's file does not name it: apply on both sides, edits and GitOps go on as ever."""
    path, kubectl = await registered(tenant), kubectl_of(owner)
    for more, arguments in enumerate((["apply"], ["apply", "--server-side", "--force-conflicts"], ["apply"])):
        body = manifest(tenant.namespace, labels={"more": str(more)})
        await kubectl(*arguments, "-f", "-", input=yaml.safe_dump(body))
    await kubectl("label", "tokenclient", "web", "-n", tenant.namespace, "team=shop")

    _, client = await owner.call("GET", path)
    assert client["metadata"]["finalizers"] == [OURS]
    assert client["metadata"]["labels"] == {"more": "2", "team": "shop"}


async def test_kubectl_replace_has_to_name_the_finalizer(owner: User, tenant: Tenant) -> None:
    """A file that does not takes it off, which nobody notices: it is refused, and says how to go on."""
    await registered(tenant)
    kubectl = kubectl_of(owner)
    body = manifest(tenant.namespace, labels={"team": "shop"})

    with pytest.raises(KubectlError, match="kubectl replace does if the file names it"):
        await kubectl("replace", "-f", "-", input=yaml.safe_dump(body))
    body["metadata"]["finalizers"] = [OURS]
    await kubectl("replace", "-f", "-", input=yaml.safe_dump(body))


async def test_collector_takes_a_lost_owner_off(owner: User, tenant: Tenant) -> None:
    """One of two owners is gone: the garbage collector may say so, though it may mint for nobody."""
    cluster, core = tenant.cluster, f"/api/v1/namespaces/{tenant.namespace}"
    await cluster.request("POST", f"{core}/configmaps", {"metadata": {"name": "stays"}})
    _, stays = await cluster.request("GET", f"{core}/configmaps/stays")
    owners = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}
        for name, uid in (("stays", stays["metadata"]["uid"]), ("gone", "0a1b"))
    ]
    body = manifest(tenant.namespace, finalizers=[OURS], ownerReferences=owners)
    assert_passed(await owner.call("POST", owner.clients, body), 201)

    async def taken_off() -> bool:
        _, client = await owner.call("GET", f"{owner.clients}/web")
        return [one["name"] for one in client["metadata"]["ownerReferences"]] == ["stays"]

    await until(taken_off, what="the collector took the lost owner off", seconds=90)


async def test_namespace_goes_once_the_broker_lets_go(thief: Thief) -> None:
    """Its controller only deletes: it is held by the finalizer, and not by the policy."""
    tenant = thief.tenant
    path = await registered(tenant)
    assert_passed(await tenant.cluster.request("DELETE", f"/api/v1/namespaces/{tenant.namespace}"))

    async def deleting() -> bool:
        _, client = await tenant.cluster.request("GET", path)
        return "deletionTimestamp" in client["metadata"]

    await until(deleting, what="the client is being deleted")
    assert_passed(await thief.call("PATCH", path, {"metadata": {"finalizers": None}}))

    async def gone() -> bool:
        return (await tenant.cluster.request("GET", f"/api/v1/namespaces/{tenant.namespace}"))[0] == 404

    await until(gone, what="the namespace is gone", seconds=60)
