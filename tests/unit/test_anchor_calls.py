"""Anchors, asked of an API server that answers all kinds of things."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from broker.errors import BrokerError, Reason
from broker.kube.anchors import KubeAnchors
from broker.kube.session import KubeSession
from tests.support.certificates import Authority
from tests.support.scripted import Reply, ScriptedServer, answer, says, scripted

CONFLICT = says(answer(409, b'{"message": "no", "details": {"kind": "secrets"}}'))


@asynccontextmanager
async def anchors(folder: Path, *replies: Reply) -> AsyncIterator[tuple[KubeAnchors, ScriptedServer]]:
    """Make anchors at a server that gives these replies."""
    (folder / "token").write_text("own.token")
    authority = Authority.create(folder, "test")
    async with (
        scripted(*replies) as server,
        KubeSession(server.url, authority.file, folder / "token", 5) as session,
    ):
        yield KubeAnchors(session), server


async def test_another_anchor_of_that_name_is_not_the_one_to_delete(tmp_path: Path) -> None:
    """Where a UID is given, 409 says that there is none of that UID any more."""
    async with anchors(tmp_path, CONFLICT) as (made, server):
        assert not await made.delete("shop", "tokenbroker-anchor-a", "u-1")

    assert b'"preconditions":{"uid":"u-1"}' in server.requests[0]


async def test_a_conflict_without_a_precondition_is_no_end(tmp_path: Path) -> None:
    """The anchor may be there still, so its tokens must not count as ended."""
    async with anchors(tmp_path, CONFLICT) as (made, _):
        with pytest.raises(BrokerError) as failed:
            await made.delete("shop", "tokenbroker-anchor-a")

    assert failed.value.reason is Reason.KUBERNETES_UNAVAILABLE
    assert "409" in failed.value.operator_detail


async def test_an_empty_uid_is_a_precondition_that_nothing_meets(tmp_path: Path) -> None:
    """It must not turn into a deletion of whatever has that name."""
    async with anchors(tmp_path, CONFLICT) as (made, server):
        assert not await made.delete("shop", "tokenbroker-anchor-a", "")

    assert orjson.loads(server.requests[0].partition(b"\r\n\r\n")[2])["preconditions"] == {"uid": ""}
