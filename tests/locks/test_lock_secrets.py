"""Lock 2: which Secrets a thief of the broker's credential can make, change and delete. The broker does not run."""

from typing import Any

import pytest
import yaml

from broker.model.client import API_VERSION
from tests.support.broker import ROOT
from tests.support.locks import Thief, anchor, assert_held, assert_passed

POLICY = "tokenbroker-secrets"
OWNER: dict[str, Any] = anchor()["metadata"]["ownerReferences"][0]
LEGACY = {"kubernetes.io/service-account.name": "reader"}
NAME = "tokenbroker-anchor-another"


def labels(**changes: str | None) -> dict[str, str]:
    """Return an anchor's labels, but for what is changed; None leaves one out."""
    named = {"client": "web", "anchor": "grant"} | changes
    return {f"tokenbroker.dev/{name}": value for name, value in named.items() if value is not None}


@pytest.mark.parametrize("kind", ["grant", "vault", "version", "bucket", "token", "trial"])
async def test_anchor_of_each_kind(kind: str, thief: Thief) -> None:
    """What the broker makes passes, and the refusals below are for what they change."""
    assert_passed(await thief.make(anchor(name=NAME, labels=labels(anchor=kind)), "?dryRun=All"), 201)


@pytest.mark.parametrize("kind", ["Secret", "ServiceAccount"])
async def test_anchor_that_belongs_to_another_anchor_or_an_account(kind: str, thief: Thief) -> None:
    """Buckets own tokens' anchors, and accounts own all where there are no TokenClients."""
    owner = {"apiVersion": "v1", "kind": kind, "name": "x", "uid": "0a1b"}

    assert_passed(await thief.make(anchor(name=NAME, ownerReferences=[owner]), "?dryRun=All"), 201)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "service_account_token": (
        anchor(name=NAME, annotations=LEGACY) | {"type": "kubernetes.io/service-account-token"},
        "creates anchors only",
    ),
    "opaque_secret": (anchor(name=NAME) | {"type": "Opaque"}, "creates anchors only"),
    "secret_of_another_name": (anchor(name="other"), "creates anchors only"),
    "anchor_with_data": (anchor(name=NAME) | {"data": {"a": "Yg=="}}, "nothing is in an anchor"),
    "anchor_with_string_data": (anchor(name=NAME) | {"stringData": {"a": "b"}}, "nothing is in an anchor"),
    "anchor_with_a_finalizer": (anchor(name=NAME, finalizers=["example.com/x"]), "no finalizer"),
    "anchor_with_two_owners": (
        anchor(name=NAME, ownerReferences=[OWNER, OWNER | {"name": "second", "uid": "2b3c"}]),
        "one owner",
    ),
    "anchor_without_an_owner": (anchor(name=NAME, ownerReferences=None), "one owner"),
    "anchor_of_a_configmap": (
        anchor(name=NAME, ownerReferences=[OWNER | {"apiVersion": "v1", "kind": "ConfigMap"}]),
        "one owner",
    ),
    "anchor_of_something_called_tokenclient": (
        anchor(name=NAME, ownerReferences=[OWNER | {"apiVersion": "example.com/v1"}]),
        "one owner",
    ),
    "anchor_of_something_called_secret": (
        anchor(name=NAME, ownerReferences=[OWNER | {"apiVersion": "example.com/v1", "kind": "Secret"}]),
        "one owner",
    ),
    "anchor_of_a_version_that_is_not_served": (
        anchor(name=NAME, ownerReferences=[OWNER | {"apiVersion": "tokenbroker.dev/v9"}]),
        "one owner",
    ),
    "anchor_with_the_finalizer_that_orphans": (anchor(name=NAME, finalizers=["orphan"]), "no finalizer"),
    "anchor_of_another_kind_of_ours": (anchor(name=NAME, ownerReferences=[OWNER | {"kind": "Other"}]), "one owner"),
    "anchor_without_labels": (anchor(name=NAME, labels=None), "whose and what it is"),
    "anchor_of_no_client": (anchor(name=NAME, labels=labels(client=None)), "whose and what it is"),
    "anchor_of_no_kind": (anchor(name=NAME, labels=labels(anchor=None)), "whose and what it is"),
    "anchor_of_an_unknown_kind": (anchor(name=NAME, labels=labels(anchor="other")), "whose and what it is"),
}


@pytest.mark.parametrize("attempt", BAD)
async def test_stolen_credential_makes_no(attempt: str, thief: Thief) -> None:
    """RBAC allows it to create Secrets there; admission refuses all but anchors that go with their owner."""
    secret, words = BAD[attempt]

    assert_held(await thief.make(secret, "?dryRun=All"), POLICY, words)


async def test_stolen_credential_makes_no_secret_in_its_own_namespace(thief: Thief) -> None:
    """The canary's Role allows it there, so that the broker can see that admission does not."""
    body = {"metadata": {"name": "mine"}, "type": "Opaque"}

    assert_held(
        await thief.call("POST", "/api/v1/namespaces/tokenbroker/secrets", body), POLICY, "creates anchors only"
    )


async def test_stolen_credential_deletes_no_foreign_secret(thief: Thief) -> None:
    """RBAC allows it to delete Secrets there; admission looks at what it would delete."""
    await thief.tenant.cluster.request("POST", f"{thief.core}/secrets", {"metadata": {"name": "foreign"}})

    assert_held(await thief.call("DELETE", f"{thief.core}/secrets/foreign"), POLICY, "deletes anchors only")
    assert_passed(await thief.call("DELETE", f"{thief.core}/secrets/{anchor()['metadata']['name']}"))


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", {"propagationPolicy": "Orphan"}),
        ("", {"orphanDependents": True}),
        ("?propagationPolicy=Orphan", None),
        ("?orphanDependents=true", None),
        ("", {"propagationPolicy": "Foreground"}),
        ("?propagationPolicy=Foreground", None),
    ],
)
async def test_stolen_credential_orphans_no_anchor(query: str, body: dict[str, Any] | None, thief: Thief) -> None:
    """Deleting anchors ends tokens; deleting them so would keep those below alive, or the anchor itself."""
    path = f"{thief.core}/secrets/{anchor()['metadata']['name']}"

    assert_held(await thief.call("DELETE", path + query, body), POLICY, "orphans no anchor")
    assert_passed(await thief.call("DELETE", path, {"propagationPolicy": "Background"}))


def test_the_owner_is_of_the_version_that_is_served() -> None:
    """The garbage collector finds no owner of another version, and leaves what hangs below it."""
    [crd] = yaml.safe_load_all((ROOT / "deploy" / "base" / "crd.yaml").read_text())
    served = [f"{crd['spec']['group']}/{one['name']}" for one in crd["spec"]["versions"] if one["served"]]
    policy = (ROOT / "deploy" / "base" / "policies" / "secrets.yaml").read_text()

    assert served == [API_VERSION]
    assert f"owner.apiVersion == '{API_VERSION}'" in policy


async def test_stolen_credential_changes_no_secret(thief: Thief) -> None:
    """Refused even where somebody's Role allows it: not its own anchors either."""
    await thief.is_given("", "secrets", "patch")
    path = f"{thief.core}/secrets/{anchor()['metadata']['name']}"

    assert_held(await thief.call("PATCH", path, {"metadata": {"labels": {"a": "b"}}}), POLICY, "changes no Secret")
