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


async def test_editor_orphans_other_secrets(editor: User) -> None:
    """Nothing else is anybody's business here either."""
    assert_passed(await editor.call("POST", editor.secrets, {"metadata": {"name": "mine"}}), 201)

    assert_passed(await editor.call("DELETE", f"{editor.secrets}/mine?propagationPolicy=Orphan"))


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


async def test_foreground_deletion_of_an_anchor_ends(editor: User) -> None:
    """The garbage collector may take its own finalizer off, or the anchor would stay and its tokens live."""
    options = {"propagationPolicy": "Foreground"}
    assert_passed(await editor.call("DELETE", f"{editor.secrets}/{ANCHOR}", options))

    await _until_gone(editor, ANCHOR)


async def test_anchor_goes_with_its_client(thief: Thief) -> None:
    """Nobody has to delete anything but the TokenClient."""
    tenant = thief.tenant
    body = token_client(tenant.namespace, "web", grants=[{"serviceAccount": {"name": "reader"}, "vault": {}}])
    _, client = await tenant.cluster.request("POST", tenant.path, body)
    owner = {key: client[key] for key in ("apiVersion", "kind")} | {
        key: client["metadata"][key] for key in ("name", "uid")
    }
    assert_passed(await thief.make(anchor(name="tokenbroker-anchor-owned", ownerReferences=[owner])), 201)
    path = f"{thief.core}/secrets/tokenbroker-anchor-owned"
    assert_passed(await tenant.cluster.request("DELETE", f"{tenant.path}/web"))

    async def gone() -> bool:
        return (await tenant.cluster.request("GET", path))[0] == 404

    await until(gone, what="the anchor is gone", seconds=90)  # the collector looks for new kinds each half minute


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
