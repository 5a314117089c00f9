"""Rights with the effect of others, on the real API server: why they count where those are denied, or make strong."""

from typing import Any

from tests.support.accounts import Account, issued, rule, works
from tests.support.processes import until
from tests.verification.conftest import Limited

GIZMOS = "gizmos.established.example.com"


async def test_events_are_the_same_objects_in_both_groups(limited: Limited) -> None:
    """So a right in either gives what is denied in the other."""
    tenant = await limited.tenant("two-groups")
    account = await Account.create(tenant, "reader", rule("list", "events", "events.k8s.io"))
    about = {"kind": "Namespace", "name": "two-groups", "namespace": "two-groups"}
    event = {"metadata": {"name": "mine"}, "involvedObject": about, "reason": "Tried"}
    await limited.cluster.request("POST", "/api/v1/namespaces/two-groups/events", event)
    plain, _ = await limited.cluster.request("GET", "/api/v1/namespaces/two-groups/events", token=account.token)
    path = "/apis/events.k8s.io/v1/namespaces/two-groups/events"
    _, found = await limited.cluster.request("GET", path, token=account.token)

    assert plain == 403
    assert "mine" in {one["metadata"]["name"] for one in found["items"]}


async def test_who_may_evict_deletes_a_pod(limited: Limited) -> None:
    """Without the right to delete it."""
    tenant = await limited.tenant("evicts")
    account = await Account.create(tenant, "reader", rule("create", "pods/eviction"))
    path = "/api/v1/namespaces/evicts/pods"
    await limited.cluster.request(
        "POST", path, {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
    )
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web", "namespace": "evicts"}}
    plain, _ = await limited.cluster.request("DELETE", f"{path}/web", token=account.token)
    evicted, _ = await limited.cluster.request("POST", f"{path}/web/eviction", eviction, token=account.token)
    after, _ = await limited.cluster.request("GET", f"{path}/web")

    assert (plain, evicted, after) == (403, 201, 404)


async def test_who_may_patch_has_an_object_deleted_which_is_no_pass(limited: Limited) -> None:
    """By an owner that is not there: the garbage collector's doing, which admission may forbid; nobody can tell."""
    tenant = await limited.tenant("collected")
    account = await Account.create(tenant, "reader", rule("patch", "configmaps"))
    client = await account.client(expect={"deny": ["delete configmaps"]})
    unknown = await account.until_condition("AccessVerified", "Unknown", "RulesIncomplete")
    core = "/api/v1/namespaces/collected/configmaps"
    await limited.cluster.request("POST", core, {"metadata": {"name": "mine"}})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}
    plain, _ = await limited.cluster.request("DELETE", f"{core}/mine", token=account.token)
    body = {"metadata": {"ownerReferences": [owner]}}
    patched, _ = await limited.cluster.request("PATCH", f"{core}/mine", body, token=account.token)

    async def collected() -> bool:
        return (await limited.cluster.request("GET", f"{core}/mine"))[0] == 404

    await until(collected, what="the garbage collector deleted it", seconds=60)
    assert (plain, patched) == (403, 200)
    assert "deny 'delete configmaps' could not be verified: who may update or patch" in unknown["message"]
    assert await works(limited.cluster, await issued(limited.broker, client))


async def test_who_may_write_the_status_of_a_definition_keeps_its_objects_from_being_served(limited: Limited) -> None:
    """So nobody would hear that a TokenClient is suspended: the right makes strong."""
    tenant = await limited.tenant("established")
    crd, status = "customresourcedefinitions", "customresourcedefinitions/status"
    account = await Account.create(tenant, "reader", rule("patch", status, "apiextensions.k8s.io"), everywhere=True)
    definitions, served = f"/apis/apiextensions.k8s.io/v1/{crd}", "/apis/established.example.com/v1/gizmos"
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "listKind": "GizmoList"}
    spec = {"group": "established.example.com", "scope": "Cluster", "names": names, "versions": [version]}
    await limited.cluster.request("POST", definitions, {"metadata": {"name": GIZMOS}, "spec": spec})

    async def answers(status: int) -> bool:
        return (await limited.cluster.request("GET", served))[0] == status

    await until(lambda: answers(200), what="the definition is served")
    _, found = await limited.cluster.request("GET", f"{definitions}/{GIZMOS}")
    conditions = [
        one | ({"status": "False"} if one["type"] in {"Established", "NamesAccepted"} else {})
        for one in _conditions(found)
    ]
    body = {"status": {"conditions": conditions}}
    patched, _ = await limited.cluster.request("PATCH", f"{definitions}/{GIZMOS}/status", body, token=account.token)
    await until(lambda: answers(404), what="it is not served any more")
    await limited.cluster.request("DELETE", f"{definitions}/{GIZMOS}")

    assert patched == 200


def _conditions(definition: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = definition["status"]["conditions"]
    return found
