"""Lock 2: what a thief of the broker's credential can change about TokenClients. The broker does not run."""

from typing import Any

import pytest

from tests.support.bad_specs import largest
from tests.support.broker import token_client
from tests.support.locks import Thief, held, passed

POLICY = "tokenbroker-clients"
OURS, OTHER = "tokenbroker.dev/anchors", "example.com/other"


async def register(thief: Thief, *finalizers: str) -> str:
    """Register a client as its owner would, and return its path."""
    body = token_client(thief.tenant.namespace, "web", grants=[{"serviceAccount": {"name": "reader"}, "vault": {}}])
    body["metadata"] |= {"labels": {"team": "shop"}, "annotations": {"a": "b"}, "finalizers": list(finalizers)}
    passed(await thief.tenant.cluster.request("POST", thief.tenant.path, body), 201)
    return f"{thief.tenant.path}/web"


def metadata(**changes: Any) -> dict[str, Any]:
    """Return a change of metadata that puts the broker's finalizer on, too."""
    return {"metadata": {"finalizers": [OTHER, OURS]} | changes}


async def test_broker_puts_its_finalizer_on_and_takes_it_off(thief: Thief) -> None:
    """That is what it may patch TokenClients for, next to the finalizers of others."""
    path = await register(thief, OTHER)

    passed(await thief.call("PATCH", path, metadata()))
    passed(await thief.call("PATCH", path, {"metadata": {"finalizers": [OTHER]}}))


async def test_broker_lets_go_of_a_client_that_is_being_deleted(thief: Thief) -> None:
    """With its finalizer off, the client is gone."""
    path = await register(thief, OURS)
    passed(await thief.tenant.cluster.request("DELETE", path))

    passed(await thief.call("PATCH", path, {"metadata": {"finalizers": None}}))
    passed(await thief.call("GET", path), 404)


async def test_broker_puts_its_finalizer_on_the_largest_client(thief: Thief) -> None:
    """Comparing all of it is within what CEL may cost."""
    body = token_client(thief.tenant.namespace, "web", **largest())
    passed(await thief.tenant.cluster.request("POST", thief.tenant.path, body), 201)

    passed(await thief.call("PATCH", f"{thief.tenant.path}/web", {"metadata": {"finalizers": [OURS]}}))


OWNER = {"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "0a1b"}
CHANGES: dict[str, dict[str, Any]] = {
    "grant": metadata() | {"spec": {"grants": [{"serviceAccount": {"name": "reader"}, "vault": {"ttl": "24h"}}]}},
    "authentication": metadata()
    | {"spec": {"authentication": [{"clientSecret": {"digests": ["sha256:" + "0" * 64]}}]}},
    "suspension": metadata() | {"spec": {"suspend": True}},
    "new_label": metadata(labels={"more": "x"}),
    "label": metadata(labels={"team": "x"}),
    "lost_label": metadata(labels=None),
    "annotation": metadata(annotations={"tokenbroker.dev/rotate-requested": "2027-01-01T00:00:00Z"}),
    "lost_annotations": metadata(annotations=None),
    "owner": metadata(ownerReferences=[OWNER]),
    "finalizer_of_others": {"metadata": {"finalizers": [OTHER, "example.com/mine"]}},
    "lost_finalizer_of_others": {"metadata": {"finalizers": [OURS]}},
    "all_finalizers_lost": {"metadata": {"finalizers": None}},
}


@pytest.mark.parametrize("change", CHANGES)
async def test_stolen_credential_changes_of_a_client_no(change: str, thief: Thief) -> None:
    """RBAC lets it patch TokenClients, lock 3 whatever is about an account it may mint for; lock 2 holds it."""
    path = await register(thief, OTHER)

    held(await thief.call("PATCH", path, CHANGES[change]), POLICY, "finalizer")


async def test_stolen_credential_changes_a_client_by_its_status(thief: Thief) -> None:
    """The status may be patched, and nothing else is changed on that way: Kubernetes drops the rest."""
    path = await register(thief, OTHER)
    _, before = await thief.call("GET", path)
    more = metadata(labels={"team": "x"}, ownerReferences=[OWNER]) | {"spec": {"suspend": True}}

    passed(await thief.call("PATCH", f"{path}/status", more | {"status": {"observedGeneration": 1}}))
    _, after = await thief.call("GET", path)
    kept = ("finalizers", "labels", "annotations", "ownerReferences")
    assert after["status"] == {"observedGeneration": 1}
    assert after["spec"] == before["spec"]
    assert [after["metadata"].get(name) for name in kept] == [before["metadata"].get(name) for name in kept]
