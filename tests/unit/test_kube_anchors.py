"""Anchors are made, found and deleted, and what an API server answers instead is told apart."""

from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.anchors import KubeAnchors
from broker.model.anchor import grant_anchor
from broker.model.token import Anchor
from tests.support.asked import answered, body, document, line, status
from tests.support.rotation import client, grant
from tests.support.scripted import Reply

WHICH = grant_anchor("uid-1", grant())
SECRETS = "/api/v1/namespaces/shop/secrets"
MADE = document({"metadata": {"uid": "a-1"}}, 201)
FOUND = document({"kind": "Status", "details": {"kind": "secrets", "uid": "a-1"}})
NO_SECRET = status(404, "not found", details={"kind": "secrets", "name": WHICH.name})
NO_NAMESPACE = status(404, "not found", details={"kind": "namespaces", "name": "shop"})


async def test_an_anchor_is_a_secret_without_data(tmp_path: Path) -> None:
    """Immutable, of a type of its own, labelled for people and for what deletes by label."""
    async with answered(tmp_path, MADE) as (session, server):
        assert await KubeAnchors(session).ensure(client(), WHICH) == Anchor(WHICH.name, "a-1")

    sent = body(server.requests[0])
    assert line(server.requests[0]) == f"POST {SECRETS}"
    assert sent.keys() == {"apiVersion", "kind", "type", "immutable", "metadata"}
    assert (sent["kind"], sent["type"], sent["immutable"]) == ("Secret", "tokenbroker.dev/anchor", True)
    assert sent["metadata"]["name"] == WHICH.name
    assert sent["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "tokenbroker",
        "tokenbroker.dev/client": "reporter",
        "tokenbroker.dev/anchor": "grant",
    }


async def test_the_uid_of_an_anchor_that_is_there_is_learned_without_effect(tmp_path: Path) -> None:
    """From a deletion that is none: the broker may not read Secrets."""
    async with answered(tmp_path, status(409), FOUND) as (session, server):
        assert await KubeAnchors(session).ensure(client(), WHICH) == Anchor(WHICH.name, "a-1")

    assert line(server.requests[1]) == f"DELETE {SECRETS}/{WHICH.name}?dryRun=All"


async def test_an_anchor_that_goes_while_it_is_looked_up_is_made_at_another_time(tmp_path: Path) -> None:
    """The next visit makes it."""
    async with answered(tmp_path, status(409), NO_SECRET) as (session, _):
        with pytest.raises(BrokerError) as refused:
            await KubeAnchors(session).ensure(client(), WHICH)

    assert refused.value.reason is Reason.KUBERNETES_UNAVAILABLE


async def test_an_anchor_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """A namespace that is not there is something else: then nothing is known of anchors."""
    async with answered(tmp_path, NO_SECRET, NO_NAMESPACE) as (session, _):
        anchors = KubeAnchors(session)
        assert await anchors.find(client(), WHICH) is None
        with pytest.raises(BrokerError) as refused:
            await anchors.find(client(), WHICH)

    assert refused.value.reason is Reason.BROKER_NOT_AUTHORIZED


@pytest.mark.parametrize(
    "answer_without",
    [{}, {"metadata": {}}, {"metadata": {"uid": ""}}, {"metadata": {"uid": 7}}],
    ids=["nothing", "no uid", "empty", "a number"],
)
async def test_an_anchor_without_a_uid_binds_nothing(tmp_path: Path, answer_without: Any) -> None:
    """A token that names no UID would outlive its anchor in one of the same name."""
    async with answered(tmp_path, document(answer_without, 201)) as (session, _):
        with pytest.raises(BrokerError, match="kubernetes_unavailable"):
            await KubeAnchors(session).ensure(client(), WHICH)


@pytest.mark.parametrize(("uid", "more"), [(None, {}), ("a-1", {"preconditions": {"uid": "a-1"}})])
async def test_an_anchor_is_deleted_with_what_hangs_below(
    tmp_path: Path, uid: str | None, more: dict[str, Any]
) -> None:
    """By the garbage collector; and no other one of its name, where it is known which is meant."""
    async with answered(tmp_path, document({"kind": "Status"})) as (session, server):
        assert await KubeAnchors(session).delete("shop", WHICH.name, uid) is True

    assert line(server.requests[0]) == f"DELETE {SECRETS}/{WHICH.name}"
    assert body(server.requests[0]) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        **more,
    }


@pytest.mark.parametrize("reply", [NO_SECRET, status(409)], ids=["gone", "another one of that name"])
async def test_an_anchor_that_was_not_there_has_not_been_ended(tmp_path: Path, reply: Reply) -> None:
    """No error, and nothing for the audit log."""
    async with answered(tmp_path, reply) as (session, _):
        assert await KubeAnchors(session).delete("shop", WHICH.name, "a-1") is False


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (status(403, "no Role"), Reason.BROKER_NOT_AUTHORIZED),
        (status(422, "no"), Reason.BROKER_NOT_AUTHORIZED),
        (NO_NAMESPACE, Reason.BROKER_NOT_AUTHORIZED),
        (status(401), Reason.KUBERNETES_UNAVAILABLE),
        (status(500), Reason.KUBERNETES_UNAVAILABLE),
        (status(504), Reason.KUBERNETES_UNAVAILABLE),
    ],
    ids=["403", "422", "no namespace", "401", "500", "504"],
)
async def test_what_was_not_done_is_a_fault(tmp_path: Path, reply: Reply, reason: Reason) -> None:
    """Missing rights are told apart from an API server that is away: only these are a person's to mend."""
    async with answered(tmp_path, reply, reply, reply) as (session, _):
        anchors = KubeAnchors(session)
        tries = anchors.ensure(client(), WHICH), anchors.find(client(), WHICH), anchors.delete("shop", WHICH.name)
        for attempt in tries:
            with pytest.raises(BrokerError) as refused:
                await attempt
            assert refused.value.reason is reason
    if reason is Reason.BROKER_NOT_AUTHORIZED:
        assert "apply deploy/client-namespace there" in refused.value.operator_detail
        assert refused.value.retry_after == 30
