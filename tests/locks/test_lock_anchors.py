"""Lock 4: what others can do about anchors, which is to delete them. The broker does not run."""

from typing import Any

import pytest

from tests.support.broker import Tenant, token_client
from tests.support.kubectl import KubectlError
from tests.support.locks import ANCHOR, Thief, User, anchor, assert_held, assert_passed, until_may
from tests.support.processes import until

POLICY = "tokenbroker-anchors"


@pytest.fixture
async def editor(thief: Thief) -> User:
    """Return an editor of the namespace, where an anchor is: the rights of a client whose account is strong."""
    user = await User.with_role(thief.tenant, "editor", {"kind": "ClusterRole", "name": "edit"})
    await until_may(user.cluster, user.token, namespace=user.namespace, verb="patch", resource="secrets")
    return user


SQUATTERS: dict[str, dict[str, Any]] = {
    "name": {"type": "Opaque", "metadata": {"name": "tokenbroker-anchor-future"}},
    "type": {"type": "tokenbroker.dev/anchor", "metadata": {"name": "other"}},
    "name_and_type": anchor(name="tokenbroker-anchor-future"),
    "generated_name": {"type": "Opaque", "metadata": {"generateName": "tokenbroker-anchor-"}},
    "finalizer_that_orphans": anchor(name="tokenbroker-anchor-future", finalizers=["orphan"]),
}


@pytest.mark.parametrize("squatter", SQUATTERS)
async def test_editor_squats_an_anchors(squatter: str, editor: User) -> None:
    """What bears an anchor's name or type is the broker's alone to make."""
    assert_held(await editor.call("POST", editor.secrets, SQUATTERS[squatter]), POLICY, "only the broker makes anchors")


async def test_editor_makes_other_secrets(editor: User) -> None:
    """Nothing else is anybody's business here."""
    assert_passed(await editor.call("POST", editor.secrets, {"metadata": {"generateName": "mine-"}}), 201)


async def test_cluster_admin_makes_no_anchor(tenant: Tenant) -> None:
    """Even who may do anything has to take the policy away first, which is seen."""
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets"

    assert_held(await tenant.cluster.request("POST", path, anchor()), POLICY, "only the broker makes anchors")


OWNER = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "editor", "uid": "0a1b"}
CHANGES: dict[str, dict[str, Any]] = {
    "finalizer": {"metadata": {"finalizers": ["example.com/mine"]}},
    "finalizer_that_orphans": {"metadata": {"finalizers": ["orphan"]}},
    "finalizer_that_waits": {"metadata": {"finalizers": ["foregroundDeletion"]}},
    "other_owner": {"metadata": {"ownerReferences": [OWNER]}},
    "second_owner": {"metadata": {"ownerReferences": [*anchor()["metadata"]["ownerReferences"], OWNER]}},
    "lost_owner": {"metadata": {"ownerReferences": None}},
    "labels": {"metadata": {"labels": {"tokenbroker.dev/client": "other"}}},
    "data": {"data": {"a": "Yg=="}},
}


@pytest.mark.parametrize("change", CHANGES)
async def test_editor_puts_on_an_anchor_a(change: str, editor: User) -> None:
    """A finalizer would keep its tokens alive for a minute, a second owner for good."""
    assert_held(await editor.call("PATCH", f"{editor.secrets}/{ANCHOR}", CHANGES[change]), POLICY, "nobody changes one")


async def test_editor_changes_an_anchors_type(editor: User) -> None:
    """Kubernetes itself refuses: a Secret's type stays what it was, for anchors and for what would become one."""
    assert_passed(await editor.call("POST", editor.secrets, {"metadata": {"name": "mine"}}), 201)

    away = await editor.call("PATCH", f"{editor.secrets}/{ANCHOR}", {"type": "Opaque"})
    into = await editor.call("PATCH", f"{editor.secrets}/mine", {"type": "tokenbroker.dev/anchor"})
    for status, answer in (away, into):
        assert status == 422
        assert "type: Invalid value" in answer["message"]


async def test_editor_ends_tokens(editor: User, thief: Thief) -> None:
    """Whoever may delete Secrets may delete anchors: ending tokens is never refused."""
    assert_passed(await editor.call("DELETE", f"{editor.secrets}/{ANCHOR}"))

    assert (await thief.mint())[0] == 404


ORPHANING: dict[str, tuple[str, dict[str, Any] | None]] = {
    "by policy": ("", {"propagationPolicy": "Orphan"}),
    "by the older option": ("", {"orphanDependents": True}),
    "by policy, asked for in the query": ("?propagationPolicy=Orphan", None),
    "by the older option, asked for in the query": ("?orphanDependents=true", None),
    "by policy, with a query that says otherwise": ("?propagationPolicy=Background", {"propagationPolicy": "Orphan"}),
}
"""Every way to ask for it: a body counts, and the query where there is none."""


@pytest.mark.parametrize("way", ORPHANING)
@pytest.mark.parametrize("which", ["bucket", "collection"])
async def test_editor_orphans_what_is_below_an_anchor(way: str, which: str, editor: User, thief: Thief) -> None:
    """Suspending deletes the anchors at the top: one below that lost its owner would keep its token alive."""
    bucket, token = await _bucket_and_token(thief)
    query, body = ORPHANING[way]
    path = f"{editor.secrets}/{bucket}" if which == "bucket" else editor.secrets

    assert_held(await editor.call("DELETE", path + query, body), POLICY, "not deleted with --cascade=orphan")
    assert_passed(await editor.call("DELETE", f"{editor.secrets}/{bucket}"))
    await _until_gone(editor, token)


async def test_cluster_admin_orphans_no_anchor(thief: Thief) -> None:
    """There is no reason to, whoever asks."""
    bucket, _ = await _bucket_and_token(thief)
    path = f"{thief.core}/secrets/{bucket}"
    outcome = await thief.tenant.cluster.request("DELETE", path, {"propagationPolicy": "Orphan"})

    assert_held(outcome, POLICY, "not deleted with --cascade=orphan")


@pytest.mark.parametrize("options", [{"propagationPolicy": "Background"}, {"orphanDependents": False}, {}])
async def test_editor_deletes_what_is_below_an_anchor_with_it(
    options: dict[str, Any], editor: User, thief: Thief
) -> None:
    """Each deletion that does not orphan passes, and ends the tokens below."""
    bucket, token = await _bucket_and_token(thief)

    status, _ = await editor.call("DELETE", f"{editor.secrets}/{bucket}", options)
    assert status in {200, 202}
    await _until_gone(editor, token)


@pytest.mark.parametrize("policy", ["Orphan", "Foreground"])
async def test_editor_deletes_other_secrets_as_he_likes(policy: str, editor: User) -> None:
    """Nothing else is anybody's business here either."""
    assert_passed(await editor.call("POST", editor.secrets, {"metadata": {"name": "mine"}}), 201)

    assert_passed(await editor.call("DELETE", f"{editor.secrets}/mine?propagationPolicy={policy}"))


WAITING: dict[str, tuple[str, dict[str, Any] | None]] = {
    "in the body": ("", {"propagationPolicy": "Foreground"}),
    "in the query": ("?propagationPolicy=Foreground", None),
    "in the body, with a query that says otherwise": (
        "?propagationPolicy=Background",
        {"propagationPolicy": "Foreground"},
    ),
}


@pytest.mark.parametrize("way", WAITING)
@pytest.mark.parametrize("which", ["anchor", "collection"])
async def test_editor_has_an_anchor_wait_for_what_he_hung_below_it(
    way: str, which: str, editor: User, thief: Thief
) -> None:
    """It would be in deletion for ever, and neither usable nor made again: the end of all that the client gets."""
    await _hang_below(editor, f"{editor.secrets}/{ANCHOR}")
    query, body = WAITING[way]
    path = f"{editor.secrets}/{ANCHOR}" if which == "anchor" else editor.secrets

    assert_held(await editor.call("DELETE", path + query, body), POLICY, "nor with --cascade=foreground")
    assert (await thief.mint())[0] == 201
    assert_passed(await editor.call("DELETE", f"{editor.secrets}/{ANCHOR}"))
    assert_passed(await editor.call("GET", f"{editor.secrets}/{ANCHOR}"), 404)


async def test_kubectl_deletes_an_anchor_as_it_does_by_default(editor: User, thief: Thief) -> None:
    """Foreground is refused in words that say what to do, and that works, whatever hangs below."""
    await _hang_below(editor, f"{editor.secrets}/{ANCHOR}")
    kubectl = editor.cluster.kubectl.with_kubeconfig(editor.cluster.kubeconfig_for(editor.token))
    command = ("delete", "secret", ANCHOR, "-n", editor.namespace)

    with pytest.raises(KubectlError, match=r"nor with --cascade=foreground.*: leave --cascade out"):
        await kubectl(*command, "--cascade=foreground")
    await kubectl(*command, "--timeout=30s")
    assert (await thief.mint())[0] == 404


async def _hang_below(editor: User, *paths: str) -> None:
    """Make what these would wait for: they are its owners, and it has a finalizer that nobody takes off."""
    owners = [(await editor.cluster.request("GET", path))[1] for path in paths]
    metadata = {
        "name": "hold",
        "finalizers": ["example.com/hold"],
        "ownerReferences": [_reference(owner) | {"blockOwnerDeletion": True} for owner in owners],
    }
    path = f"/api/v1/namespaces/{editor.namespace}/configmaps"
    assert_passed(await editor.call("POST", path, {"metadata": metadata}), 201)


async def _bucket_and_token(thief: Thief) -> tuple[str, str]:
    """Make the anchors of a bucket and of a token in it, as the broker does, and return their names."""
    bucket, token = "tokenbroker-anchor-bucket", "tokenbroker-anchor-token"
    account = await thief.account_owner()
    status, made = await thief.make(anchor(name=bucket, ownerReferences=[account]))
    assert_passed((status, made), 201)
    owner = {"apiVersion": "v1", "kind": "Secret", "name": bucket, "uid": made["metadata"]["uid"]}
    assert_passed(await thief.make(anchor(name=token, ownerReferences=[owner])), 201)
    return bucket, token


async def _until_gone(user: User, name: str) -> None:
    async def gone() -> bool:
        return (await user.call("GET", f"{user.secrets}/{name}"))[0] == 404

    await until(gone, what=f"{name} is gone", seconds=90)


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_anchor_goes_with_its_client(policy: str, thief: Thief) -> None:
    """Nobody has to delete anything but the TokenClient."""
    owned, below = await _client_and_anchors(thief)
    tenant = thief.tenant
    assert_passed(await tenant.cluster.request("DELETE", f"{tenant.path}/web?propagationPolicy={policy}"))

    for path in (owned, below):
        await _until_answers(thief, path, 404)  # the collector looks for new kinds each half minute


async def test_broker_ends_an_anchor_that_the_garbage_collector_has_wait(editor: User, thief: Thief) -> None:
    """Deleting a client so lets somebody hold its anchors, but not against the broker, which ends them itself."""
    owned, _ = await _client_and_anchors(thief)
    tenant = thief.tenant
    await _hang_below(editor, f"{tenant.path}/web", owned)
    assert_passed(await tenant.cluster.request("DELETE", f"{tenant.path}/web?propagationPolicy=Foreground"))

    async def waits() -> bool:
        _, found = await tenant.cluster.request("GET", owned)
        return "foregroundDeletion" in found["metadata"].get("finalizers", [])

    await until(waits, what="the anchor waits", seconds=90)
    assert_passed(await thief.call("DELETE", owned, {"propagationPolicy": "Background"}))
    await _until_answers(thief, owned, 404)


async def _client_and_anchors(thief: Thief) -> tuple[str, str]:
    """Make a client, an anchor that it owns, and one below; return the paths of both."""
    tenant = thief.tenant
    body = token_client(tenant.namespace, "web", grants=[{"serviceAccount": {"name": "reader"}, "vault": {}}])
    _, owner = await tenant.cluster.request("POST", tenant.path, body)
    names = ("tokenbroker-anchor-owned", "tokenbroker-anchor-below")
    for name in names:
        status, owner = await thief.make(anchor(name=name, ownerReferences=[_reference(owner)]))
        assert_passed((status, owner), 201)
    return f"{thief.core}/secrets/{names[0]}", f"{thief.core}/secrets/{names[1]}"


def _reference(owner: dict[str, Any]) -> dict[str, Any]:
    return {key: owner[key] for key in ("apiVersion", "kind")} | {
        key: owner["metadata"][key] for key in ("name", "uid")
    }


async def _until_answers(thief: Thief, path: str, status: int) -> None:
    async def answers() -> bool:
        return (await thief.tenant.cluster.request("GET", path))[0] == status

    await until(answers, what=f"{path} answers {status}", seconds=90)


@pytest.mark.parametrize("user", ["system:kube-controller-manager", "someone"])
async def test_controllers_without_accounts_of_their_own(user: str, thief: Thief) -> None:
    """Where all controllers run as one user, that one is the garbage collector; anybody else is refused."""
    arguments = (
        "label",
        "secret",
        ANCHOR,
        "-n",
        thief.tenant.namespace,
        "a=b",
        f"--as={user}",
        "--as-group=system:masters",
    )

    if user == "someone":
        with pytest.raises(KubectlError, match=POLICY):
            await thief.tenant.cluster.kubectl(*arguments)
    else:
        await thief.tenant.cluster.kubectl(*arguments)
