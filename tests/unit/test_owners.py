"""Who owns an anchor, asked of an API server that answers all kinds of things."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from broker.errors import BrokerError, Reason
from broker.kube.anchors import KubeAnchors
from broker.kube.owners import AccountOwners, Owner
from broker.kube.session import KubeSession
from broker.model.anchor import AnchorId, grant_anchor, trial_anchor, vault_anchor, version_anchor
from broker.model.client import Grant
from broker.model.token import Anchor
from tests.support.certificates import Authority
from tests.support.rotation import client, grant
from tests.support.scripted import ScriptedServer, answer, says, scripted


def _session(folder: Path, server: ScriptedServer) -> KubeSession:
    (folder / "token").write_text("own.token")
    return KubeSession(server.url, Authority.create(folder, "test").file, folder / "token", 5)


def _made(uid: str) -> bytes:
    return answer(201, orjson.dumps({"metadata": {"uid": uid}}))


async def test_account_is_the_owner(tmp_path: Path) -> None:
    """By the UID that it has now, so that one made again does not keep the tokens of the one before alive."""
    async with (
        scripted(says(answer(200, b'{"metadata": {"uid": "u-1"}}'))) as server,
        _session(tmp_path, server) as session,
    ):
        owner = await AccountOwners(session).owner(client(), "reporter")

    assert owner == Owner("v1", "ServiceAccount", "reporter", "u-1")
    assert server.requests[0].startswith(b"GET /api/v1/namespaces/shop/serviceaccounts/reporter ")


@pytest.mark.parametrize(
    ("status", "body", "reason", "said"),
    [
        (404, b"{}", Reason.SERVICE_ACCOUNT_MISSING, "kubectl create serviceaccount reporter -n shop"),
        (
            403,
            b'{"message": "no"}',
            Reason.BROKER_NOT_AUTHORIZED,
            "get on serviceaccounts for resourceNames: [reporter]",
        ),
        (500, b"{}", Reason.KUBERNETES_UNAVAILABLE, "500"),
        (200, b"{}", Reason.KUBERNETES_UNAVAILABLE, "no uid"),
        (200, b'{"metadata": {"uid": ""}}', Reason.KUBERNETES_UNAVAILABLE, "no uid"),
    ],
)
async def test_account_that_is_not_shown_owns_nothing(
    tmp_path: Path, status: int, body: bytes, reason: Reason, said: str
) -> None:
    """Then there is no anchor, and the words say what to do."""
    async with scripted(says(answer(status, body))) as server, _session(tmp_path, server) as session:
        with pytest.raises(BrokerError) as refused:
            await AccountOwners(session).owner(client(), "reporter")

    assert refused.value.reason is reason
    assert said in refused.value.operator_detail


@pytest.mark.parametrize("top", [trial_anchor, grant_anchor, vault_anchor])
async def test_anchors_belong_to_the_account_of_their_grant(
    tmp_path: Path, top: Callable[[str, Grant], AnchorId]
) -> None:
    """Those at the top of each chain; the others belong to the one above them."""
    account = says(answer(200, b'{"metadata": {"uid": "u-1"}}'))
    async with scripted(account, says(_made("a-1"))) as server, _session(tmp_path, server) as session:
        anchor = await KubeAnchors(session, AccountOwners(session)).ensure(client(), top("uid-1", grant()))

    assert anchor == Anchor(anchor.name, "a-1")
    assert server.requests[0].startswith(b"GET /api/v1/namespaces/shop/serviceaccounts/reporter ")
    assert b'"kind":"ServiceAccount","name":"reporter","uid":"u-1"' in server.requests[1]


async def test_without_more_the_token_client_is_the_owner(tmp_path: Path) -> None:
    """Nobody is asked for it."""
    async with scripted(says(_made("a-1"))) as server, _session(tmp_path, server) as session:
        await KubeAnchors(session).ensure(client(), grant_anchor("uid-1", grant()))

    assert b'"kind":"TokenClient","name":"reporter","uid":"uid-1"' in server.requests[0]


async def test_an_anchor_below_another_belongs_to_that_one(tmp_path: Path) -> None:
    """Whoever owns the one at the top is not asked for."""
    parent = Anchor("tokenbroker-anchor-parent", "p-1")
    which = version_anchor(vault_anchor("uid-1", grant()), parent, 3)
    async with scripted(says(_made("a-1"))) as server, _session(tmp_path, server) as session:
        await KubeAnchors(session, AccountOwners(session)).ensure(client(), which, parent)

    assert b'"kind":"Secret","name":"tokenbroker-anchor-parent","uid":"p-1"' in server.requests[0]
