"""Anchors, asked of an API server that answers all kinds of things."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from broker.clock import SystemClock
from broker.config import load
from broker.errors import BrokerError, Reason
from broker.kube.anchors import KubeAnchors
from broker.kube.session import KubeSession
from broker.metrics.counted import Metrics
from broker.model.anchor import grant_anchor, token_anchor
from broker.model.lease import Timing
from broker.model.token import Anchor
from broker.registries import registered
from tests.support.certificates import Authority
from tests.support.rotation import client, grant
from tests.support.scripted import Reply, ScriptedServer, answer, hangs, says, scripted

CONFLICT = says(answer(409, b'{"message": "no", "details": {"kind": "secrets"}}'))
ACCOUNT = says(answer(200, b'{"metadata": {"uid": "u-1"}}'))
CALL_SECONDS = 5.0
LEASE_SECONDS = 5


@asynccontextmanager
async def session(folder: Path, *replies: Reply) -> AsyncIterator[tuple[KubeSession, ScriptedServer]]:
    """Open a session with a server that gives these replies."""
    (folder / "token").write_text("own.token")
    authority = Authority.create(folder, "test")
    async with (
        scripted(*replies) as server,
        KubeSession(server.url, authority.file, folder / "token", CALL_SECONDS) as opened,
    ):
        yield opened, server


async def test_another_anchor_of_that_name_is_not_the_one_to_delete(tmp_path: Path) -> None:
    """Where a UID is given, 409 says that there is none of that UID any more."""
    async with session(tmp_path, CONFLICT) as (opened, server):
        assert not await KubeAnchors(opened).delete("shop", "tokenbroker-anchor-a", "u-1")

    assert b'"preconditions":{"uid":"u-1"}' in server.requests[0]


async def test_a_conflict_without_a_precondition_is_no_end(tmp_path: Path) -> None:
    """The anchor may be there still, so its tokens must not count as ended."""
    async with session(tmp_path, CONFLICT) as (opened, _):
        with pytest.raises(BrokerError) as failed:
            await KubeAnchors(opened).delete("shop", "tokenbroker-anchor-a")

    assert failed.value.reason is Reason.KUBERNETES_UNAVAILABLE
    assert "409" in failed.value.operator_detail


async def test_an_empty_uid_is_a_precondition_that_nothing_meets(tmp_path: Path) -> None:
    """It must not turn into a deletion of whatever has that name."""
    async with session(tmp_path, CONFLICT) as (opened, server):
        assert not await KubeAnchors(opened).delete("shop", "tokenbroker-anchor-a", "")

    assert orjson.loads(server.requests[0].partition(b"\r\n\r\n")[2])["preconditions"] == {"uid": ""}


@pytest.mark.parametrize("source", ["cluster", "directory"])
async def test_what_only_the_leader_makes_is_given_up_before_another_may_lead(tmp_path: Path, source: str) -> None:
    """However long other calls may take, and also where an owner has to be asked for before."""
    directory = {"registry": {"directory": str(tmp_path)}} if source == "directory" else {}
    replies = [ACCOUNT, hangs()] if source == "directory" else [hangs()]
    loop = asyncio.get_running_loop()
    async with session(tmp_path, *replies) as (opened, server):
        parts = registered(load(_config(tmp_path, **directory)), opened, SystemClock(), Metrics())
        began = loop.time()
        with pytest.raises(BrokerError) as given_up:
            await parts.anchors.ensure(client(), grant_anchor("uid-1", grant()))
        took = loop.time() - began

    assert given_up.value.reason is Reason.KUBERNETES_TIMEOUT
    assert took < Timing(LEASE_SECONDS).margin + 1 < CALL_SECONDS
    assert len(server.requests) == len(replies)


async def test_what_hangs_below_an_anchor_has_the_time_of_any_call(tmp_path: Path) -> None:
    """It is worth nothing once the one above it went, so it may come late."""

    async def later(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)  # longer than the leader would have
        await says(answer(201, b'{"metadata": {"uid": "u-2"}}'))(writer)

    async with session(tmp_path, later) as (opened, _):
        which = token_anchor(grant_anchor("uid-1", grant()), "0123456789abcdef01234567")
        made = await KubeAnchors(opened, within=0.05).ensure(client(), which, Anchor("above", "u-1"))

    assert made == Anchor(which.name, "u-2")


def _config(folder: Path, **more: Any) -> Path:
    ca_file, token = str(folder / "token"), str(folder / "token")
    document = {
        "cluster": {"name": "lab", "server": "https://lab:6443", "ca_file": ca_file},
        "kubernetes": {"ca_file": ca_file, "token_file": token},
        "lease": {"duration_seconds": LEASE_SECONDS},
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(document | more))
    return path
