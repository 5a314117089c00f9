"""Lock 2: what tokens a thief of the broker's credential can mint. The broker itself does not run."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.broker import Tenant
from tests.support.lab import Lab
from tests.support.locks import ANCHOR, AUDIENCE, Outcome, Thief, assert_forbidden, assert_held, assert_passed
from tests.support.processes import until

POLICY = "tokenbroker-tokens"
BROKER = "system:serviceaccount:tokenbroker:tokenbroker"


async def label(thief: Thief, name: str, value: str | None, policy_knows: Callable[[Outcome], bool]) -> None:
    """Change a label of the thief's namespace as operators do, and wait until policies see it."""
    path = f"/api/v1/namespaces/{thief.tenant.namespace}"
    changes = {"metadata": {"labels": {f"tokenbroker.dev/{name}": value}}}
    assert_passed(await thief.tenant.cluster.request("PATCH", path, changes))

    async def known() -> bool:
        return policy_knows(await thief.mint(boundObjectRef=None))

    await until(known, what=f"policies see the label {name}: {value}")


def allows(outcome: Outcome) -> bool:
    """Tell whether a token was minted."""
    return outcome[0] == 201


def lets_nothing_pass(outcome: Outcome) -> bool:
    """Tell whether the missing opt-in is what refuses."""
    return "tokenbroker.dev/clients: enabled" in outcome[1].get("message", "")


async def test_token_as_the_broker_asks_for_it(thief: Thief) -> None:
    """What the broker does all day passes, up to the maximum: the refusals below are for what they change.

    Where no audience is named, the policy sees the API server's own.
    """
    assert_passed(await thief.mint(), 201)
    assert_passed(await thief.mint(audiences=[]), 201)
    assert_passed(await thief.mint(expirationSeconds=86400), 201)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unbound": ({"boundObjectRef": None}, "bound to an anchor"),
    "bound_to_a_pod": ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": ANCHOR}}, "bound to an anchor"),
    "bound_to_a_node": ({"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": ANCHOR}}, "bound to an anchor"),
    "bound_to_another_secret": (
        {"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "other"}},
        "bound to an anchor",
    ),
    "bound_to_a_nameless_secret": ({"boundObjectRef": {"apiVersion": "v1", "kind": "Secret"}}, "bound to an anchor"),
    "for_another_audience": ({"audiences": ["https://vault.example"]}, "one audience"),
    "for_a_second_audience": ({"audiences": [AUDIENCE, "https://one"]}, "one audience"),
    "too_long": ({"expirationSeconds": 86401}, "86400 seconds at most"),
}


@pytest.mark.parametrize("attempt", BAD)
async def test_stolen_credential_mints_no_token(attempt: str, thief: Thief) -> None:
    """For the account that was registered, where it was: nothing but short tokens that can be ended."""
    changes, words = BAD[attempt]

    assert_held(await thief.mint(**changes), POLICY, words)


async def test_token_for_the_account_default(thief: Thief) -> None:
    """Refused even where a Role allows it: pods that say nothing run with it."""
    await thief.tenant.account("default")  # unless the cluster has made it already
    await thief.until_may_mint("default")

    assert_held(await thief.mint("default"), POLICY, "never mints for the account default")


async def test_token_for_an_account_that_nobody_registered(thief: Thief) -> None:
    """RBAC answers: the owner's Role names the accounts."""
    await thief.tenant.cluster.request("POST", f"{thief.core}/serviceaccounts", {"metadata": {"name": "other"}})

    assert_forbidden(await thief.mint("other"), BROKER)


async def test_token_in_kube_system(thief: Thief) -> None:
    """RBAC answers: no Role is there."""
    path = "/api/v1/namespaces/kube-system/serviceaccounts/generic-garbage-collector/token"

    assert_forbidden(await thief.call("POST", path, {"spec": {"audiences": [AUDIENCE]}}), BROKER)


async def test_token_in_kube_namespace_that_opted_in(installed: Lab) -> None:
    """Label and Role are there, and the namespace's name is enough to refuse."""
    thief = await Thief.steal(await Tenant.create(installed.cluster, "kube-opted-in"))

    assert_held(await thief.mint(), POLICY, "kube-* or of its own namespace")


@pytest.mark.parametrize("account", ["tokenbroker", "tokenbroker-canary"])
async def test_token_in_the_brokers_own_namespace(account: str, thief: Thief) -> None:
    """Of itself RBAC refuses one; of the canary, for which it may ask, only admission does."""
    spec = {"audiences": [AUDIENCE], "boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": ANCHOR}}
    path = f"/api/v1/namespaces/tokenbroker/serviceaccounts/{account}/token"
    outcome = await thief.call("POST", path, {"spec": spec})

    if account == "tokenbroker":
        assert_forbidden(outcome, BROKER)
    else:
        assert_held(outcome, POLICY, "of its own namespace")


@pytest.mark.parametrize("value", ["false", "", "Enabled", "true", None])
async def test_token_where_the_namespace_did_not_opt_in(value: str | None, thief: Thief) -> None:
    """Only the word 'enabled' counts: a label that says false, or anything else, is as good as none."""
    await label(thief, "clients", value, lets_nothing_pass)

    assert_held(await thief.mint(), POLICY, "tokenbroker.dev/clients: enabled")


async def test_unbound_token_where_the_operator_allows_it(thief: Thief) -> None:
    """The second label lets unbound tokens pass, and no other limit falls with it."""
    await label(thief, "unbound-tokens", "allowed", allows)

    assert_passed(await thief.mint(), 201)
    assert_held(await thief.mint(boundObjectRef=None, audiences=["x"]), POLICY, "one audience")
    assert_held(await thief.mint(boundObjectRef=None, expirationSeconds=86401), POLICY, "86400 seconds at most")
    assert_held(await thief.mint(**BAD["bound_to_a_pod"][0]), POLICY, "bound to an anchor")
    await label(thief, "clients", None, lets_nothing_pass)
    assert_held(await thief.mint(boundObjectRef=None), POLICY, "tokenbroker.dev/clients: enabled")


@pytest.mark.parametrize("value", ["true", "enabled", "false"])
async def test_unbound_token_where_the_label_says_something_else(value: str, thief: Thief) -> None:
    """Only the word 'allowed' counts: with it first, so that the change is seen."""
    await label(thief, "unbound-tokens", "allowed", allows)
    await label(thief, "unbound-tokens", value, lambda outcome: not allows(outcome))

    assert_held(await thief.mint(boundObjectRef=None), POLICY, "bound to an anchor")
