"""Lock 2: what a thief of the broker's credential can change about TokenClients. The broker does not run."""

from typing import Any

import pytest

from tests.support.bad_specs import largest
from tests.support.broker import token_client
from tests.support.locks import Thief, assert_forbidden, assert_held, assert_passed

POLICY = "tokenbroker-clients"
OURS, OTHER = "tokenbroker.dev/anchors", "example.com/other"


async def register(thief: Thief, *finalizers: str) -> str:
    """Register a client as its owner would, and return its path."""
    body = token_client(thief.tenant.namespace, "web", grants=[{"serviceAccount": {"name": "reader"}, "vault": {}}])
    body["metadata"] |= {"labels": {"team": "shop"}, "annotations": {"a": "b"}, "finalizers": list(finalizers)}
    assert_passed(await thief.tenant.cluster.request("POST", thief.tenant.path, body), 201)
    return f"{thief.tenant.path}/web"


def metadata(**changes: Any) -> dict[str, Any]:
    """Return a change of metadata that puts the broker's finalizer on, too."""
    return {"metadata": {"finalizers": [OTHER, OURS]} | changes}


async def test_broker_puts_its_finalizer_on_and_takes_it_off(thief: Thief) -> None:
    """That is what it may patch TokenClients for, next to the finalizers of others."""
    path = await register(thief, OTHER)

    assert_passed(await thief.call("PATCH", path, metadata()))
    assert_passed(await thief.call("PATCH", path, {"metadata": {"finalizers": [OTHER]}}))


async def test_broker_lets_go_of_a_client_that_is_being_deleted(thief: Thief) -> None:
    """With its finalizer off, the client is gone."""
    path = await register(thief, OURS)
    assert_passed(await thief.tenant.cluster.request("DELETE", path))

    assert_passed(await thief.call("PATCH", path, {"metadata": {"finalizers": None}}))
    assert_passed(await thief.call("GET", path), 404)


async def test_broker_puts_its_finalizer_on_the_largest_client(thief: Thief) -> None:
    """Comparing all of it is within what CEL may cost."""
    body = token_client(thief.tenant.namespace, "web", **largest())
    assert_passed(await thief.tenant.cluster.request("POST", thief.tenant.path, body), 201)

    assert_passed(await thief.call("PATCH", f"{thief.tenant.path}/web", {"metadata": {"finalizers": [OURS]}}))


OWNER = {"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "0a1b"}
SPEC: dict[str, dict[str, Any]] = {
    "grant": {"grants": [{"serviceAccount": {"name": "reader"}, "vault": {"ttl": "24h"}}]},
    "authentication": {"authentication": [{"clientSecret": {"digests": ["sha256:" + "0" * 64]}}]},
    "suspension": {"suspend": True},
}
METADATA: dict[str, dict[str, Any]] = {
    "new_label": {"labels": {"more": "x"}},
    "label": {"labels": {"team": "x"}},
    "lost_labels": {"labels": None},
    "annotation": {"annotations": {"tokenbroker.dev/rotate-requested": "2027-01-01T00:00:00Z"}},
    "lost_annotations": {"annotations": None},
    "owner": {"ownerReferences": [OWNER]},
}
FINALIZERS: dict[str, list[str] | None] = {
    "added": [OTHER, "example.com/mine"],
    "replaced": [OURS],
    "lost": None,
}


@pytest.mark.parametrize("change", SPEC)
async def test_stolen_credential_changes_the_specification(change: str, thief: Thief) -> None:
    """RBAC lets it patch TokenClients, lock 3 whatever is about an account it may mint for; lock 2 holds it."""
    path = await register(thief, OTHER)

    outcome = await thief.call("PATCH", path, metadata() | {"spec": SPEC[change]})
    assert_held(outcome, POLICY, "changes nothing of a TokenClient")


@pytest.mark.parametrize("change", METADATA)
async def test_stolen_credential_changes_metadata(change: str, thief: Thief) -> None:
    """Next to its own finalizer nothing passes: an owner that is not there would have the client deleted."""
    path = await register(thief, OTHER)

    assert_held(await thief.call("PATCH", path, metadata(**METADATA[change])), POLICY, "changes no metadata")


@pytest.mark.parametrize("change", FINALIZERS)
async def test_stolen_credential_changes_a_finalizer_of_others(change: str, thief: Thief) -> None:
    """Others wait for what their finalizers stand for."""
    path = await register(thief, OTHER)

    outcome = await thief.call("PATCH", path, {"metadata": {"finalizers": FINALIZERS[change]}})
    assert_held(outcome, POLICY, "no finalizer but its own")


def event(namespace: str, *, regarding: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """Return an Event as the broker records it, but for what is changed; None leaves a field out."""
    about = {"apiVersion": "tokenbroker.dev/v1alpha1", "kind": "TokenClient", "namespace": namespace, "name": "web"}
    body = {
        "metadata": {"generateName": "web-"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "tokenbroker.dev/tokenbroker",
        "reportingInstance": "broker-0",
        "action": "Reconcile",
        "reason": "Ready",
        "note": "as it is",
        "type": "Normal",
        "regarding": about | (regarding or {}),
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


EVENTS = "/apis/events.k8s.io/v1/namespaces"


async def test_broker_records_an_event(thief: Thief) -> None:
    """About a TokenClient, as itself: the refusals below are for what they change."""
    namespace = thief.tenant.namespace

    assert_passed(await thief.call("POST", f"{EVENTS}/{namespace}/events", event(namespace)), 201)


LEASE = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": "tokenbroker-leader"}


async def test_broker_records_who_leads(thief: Thief) -> None:
    """About a Lease of its own namespace, and not about a Pod there, or a Lease of another group."""
    events = f"{EVENTS}/tokenbroker/events"
    others = [{"apiVersion": "v1", "kind": "Pod"}, {"apiVersion": "example.com/v1"}]

    assert_passed(await thief.call("POST", events, event("tokenbroker", regarding=LEASE)), 201)
    for other in others:
        held = await thief.call("POST", events, event("tokenbroker", regarding=LEASE | other))
        assert_held(held, POLICY, "Events about TokenClients and its own Lease only")


LIES: dict[str, dict[str, Any]] = {
    "about_a_pod": {"regarding": {"apiVersion": "v1", "kind": "Pod"}},
    "about_another_kind": {"regarding": {"kind": "Pod"}},
    "about_another_groups_tokenclient": {"regarding": {"apiVersion": "example.com/v1"}},
    "about_a_node": {"regarding": {"apiVersion": "v1", "kind": "Node", "namespace": ""}},
    "related_to_a_pod": {"related": {"apiVersion": "v1", "kind": "Pod", "name": "victim"}},
    "about_a_lease_of_another_namespace": {"regarding": LEASE},
    "as_somebody_else": {"reportingController": "kubelet"},
}


@pytest.mark.parametrize("lie", LIES)
async def test_stolen_credential_records_no_event(lie: str, thief: Thief) -> None:
    """RBAC lets it record Events in each namespace; what it could say of others is held by lock 2."""
    about = LIES[lie].get("regarding", {})
    namespace = thief.tenant.namespace if about.get("namespace") != "" else "default"
    outcome = await thief.call("POST", f"{EVENTS}/{namespace}/events", event(namespace, **LIES[lie]))

    assert_held(outcome, POLICY, "Events about TokenClients and its own Lease only")


async def test_stolen_credential_records_no_event_of_the_older_kind(thief: Thief) -> None:
    """RBAC answers."""
    namespace = thief.tenant.namespace
    body = {"metadata": {"name": "x"}, "involvedObject": {"kind": "Pod", "namespace": namespace}, "reason": "Gone"}

    outcome = await thief.call("POST", f"{thief.core}/events", body)
    assert_forbidden(outcome, "system:serviceaccount:tokenbroker:tokenbroker")


async def test_events_of_the_older_kind_are_held_like_the_others(thief: Thief) -> None:
    """Where somebody's Role allows them: admission sees one as the other."""
    await thief.is_given("", "events", "create")
    namespace = thief.tenant.namespace
    new = event(namespace)
    body = {key: new[key] for key in ("metadata", "eventTime", "action", "reason", "type", "reportingInstance")}
    body |= {"involvedObject": new["regarding"], "message": "x", "reportingComponent": new["reportingController"]}
    related = {"related": {"apiVersion": "v1", "kind": "Pod", "name": "victim"}}

    assert_held(await thief.call("POST", f"{thief.core}/events", body | related), POLICY, "Events about TokenClients")
    assert_passed(await thief.call("POST", f"{thief.core}/events", body), 201)


async def test_stolen_credential_changes_a_client_by_its_status(thief: Thief) -> None:
    """The status may be patched, and nothing else is changed on that way: Kubernetes drops the rest."""
    path = await register(thief, OTHER)
    _, before = await thief.call("GET", path)
    more = metadata(labels={"team": "x"}, ownerReferences=[OWNER]) | {"spec": {"suspend": True}}

    assert_passed(await thief.call("PATCH", f"{path}/status", more | {"status": {"observedGeneration": 1}}))
    _, after = await thief.call("GET", path)
    kept = ("finalizers", "labels", "annotations", "ownerReferences")
    assert after["status"] == {"observedGeneration": 1}
    assert after["spec"] == before["spec"]
    assert [after["metadata"].get(name) for name in kept] == [before["metadata"].get(name) for name in kept]
