"""The Lease: the same promises from the fake and from a real API server."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import pytest_asyncio

from broker.errors import BrokerError, Reason
from broker.kube.lease import KubeLease
from broker.kube.session import KubeSession
from broker.model.lease import Term, released
from broker.ports import LeaseStore
from tests.support.broker import ACCOUNT
from tests.support.election import FakeLease
from tests.support.lab import Lab

HOLDER = "lease-holder"
MOMENT = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
MINE = Term("mine", 15, MOMENT, MOMENT + timedelta(seconds=5), 3)
OTHERS = Term("others", 20, MOMENT, MOMENT, 4)


@pytest_asyncio.fixture(loop_scope="session")
async def session(installed: Lab, tmp_path: Path) -> AsyncIterator[KubeSession]:
    """Open a session of an account that may hold Leases of any name, as the broker's may one."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ACCOUNT[0]}"
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]}
    role = {"kind": "Role", "name": HOLDER, "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": HOLDER, "namespace": ACCOUNT[0]}
    named = {"metadata": {"name": HOLDER}}
    request = installed.cluster.request
    await request("POST", f"/api/v1/namespaces/{ACCOUNT[0]}/serviceaccounts", named)
    await request("POST", f"{path}/roles", named | {"rules": [rule]})
    await request("POST", f"{path}/rolebindings", named | {"roleRef": role, "subjects": [subject]})
    token = tmp_path / "token"
    token.write_text(await installed.cluster.token_for(ACCOUNT[0], HOLDER))
    async with KubeSession(installed.cluster.server, installed.cluster.ca_file, token, 10) as opened:
        yield opened


@pytest.fixture(params=["fake", "kubernetes"])
def store(request: pytest.FixtureRequest) -> LeaseStore:
    """Return the fake, or the adapter in front of the real thing, with a Lease that is not there."""
    if request.param == "fake":
        return FakeLease()
    return KubeLease(request.getfixturevalue("session"), ACCOUNT[0], f"contract-{secrets.token_hex(4)}")


async def test_nothing_is_none(store: LeaseStore) -> None:
    """A Lease that is not there is no error."""
    assert await store.read() is None


async def test_what_is_written_is_read(store: LeaseStore) -> None:
    """Made and then written over, with a new version each time; times to the microsecond."""
    made = await store.write(MINE, None)
    read = await store.read()
    written = await store.write(OTHERS, made)
    again = await store.read()

    assert made is not None
    assert written is not None
    assert (made.term, written.term) == (MINE, OTHERS)
    assert (read, again) == (made, written)
    assert made.version != written.version


async def test_what_is_said_about_the_leader_is_read_and_taken_back(store: LeaseStore) -> None:
    """That it is unfit, and who offers to lead: both go with the next write that does not say them."""
    unfit = replace(MINE, unfit=True)
    made = await store.write(unfit, None)
    offered = await store.write(replace(unfit, candidate="others"), made)
    read = await store.read()
    taken = await store.write(OTHERS, offered)

    assert made is not None
    assert made.term == unfit
    assert read is not None
    assert (read.term.unfit, read.term.candidate) == (True, "others")
    assert taken is not None
    assert taken.term == OTHERS


async def test_of_two_that_make_it_one_succeeds(store: LeaseStore) -> None:
    """The second is told None, and what the first wrote stays."""
    first = await store.write(MINE, None)
    second = await store.write(OTHERS, None)

    assert first is not None
    assert second is None
    assert await store.read() == first


async def test_a_record_is_written_over_once(store: LeaseStore) -> None:
    """Who wrote over the same record too late is told None, and changes nothing."""
    seen = await store.write(MINE, None)
    first = await store.write(OTHERS, seen)
    second = await store.write(MINE, seen)

    assert first is not None
    assert second is None
    assert await store.read() == first


async def test_a_released_lease_is_held_by_nobody(store: LeaseStore) -> None:
    """An empty holder is written and read like another, and can be written over at once."""
    seen = await store.write(MINE, None)
    free = await store.write(released(MINE, MOMENT), seen)
    taken = await store.write(OTHERS, free)

    assert free is not None
    assert (free.term.holder, free.term.duration_seconds, free.term.transitions) == ("", 1, 3)
    assert taken is not None


async def test_a_lease_that_was_deleted_is_not_written_over(session: KubeSession, installed: Lab) -> None:
    """It is told like any other change: None, and nothing is made."""
    store, path = _real(session)
    seen = await store.write(MINE, None)
    await installed.cluster.request("DELETE", path)

    assert await store.write(MINE, seen) is None
    assert await store.read() is None


async def test_people_see_who_leads(session: KubeSession, installed: Lab) -> None:
    """Times of any zone are written in UTC, as Kubernetes' MicroTime."""
    store, path = _real(session)
    local = MOMENT.astimezone(timezone(timedelta(hours=2)))
    await store.write(replace(MINE, acquired_at=local, renewed_at=None), None)

    _, lease = await installed.cluster.request("GET", path)

    assert lease["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "tokenbroker"}
    assert lease["spec"] == {
        "holderIdentity": "mine",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-11-24T12:00:00.123456Z",
        "leaseTransitions": 3,
    }


async def test_a_lease_that_says_nothing_is_held_by_nobody(session: KubeSession, installed: Lab) -> None:
    """All its fields are optional; one that was made by hand is taken."""
    store, path = _real(session)
    collection, _, name = path.rpartition("/")
    await installed.cluster.request("POST", collection, {"metadata": {"name": name}})

    record = await store.read()

    assert record is not None
    assert record.term == Term("", 0, None, None, 0)


async def test_a_holder_without_a_duration_is_an_error_that_says_what_to_do(
    session: KubeSession, installed: Lab
) -> None:
    """Nobody can know when that lease is over."""
    store, path = _real(session)
    collection, _, name = path.rpartition("/")
    body = {"metadata": {"name": name}, "spec": {"holderIdentity": "somebody"}}
    await installed.cluster.request("POST", collection, body)

    with pytest.raises(BrokerError, match="delete it") as caught:
        await store.read()

    assert caught.value.reason is Reason.KUBERNETES_UNAVAILABLE


@pytest.mark.parametrize("namespace", ["default", "no-such-namespace"])
async def test_elsewhere_the_broker_may_not(session: KubeSession, namespace: str) -> None:
    """Its Role is for its own namespace: a refusal that names what to apply."""
    store = KubeLease(session, namespace, "tokenbroker")

    for call in (store.read(), store.write(MINE, None)):
        with pytest.raises(BrokerError, match=r"deploy/base") as caught:
            await call
        assert caught.value.reason is Reason.BROKER_NOT_AUTHORIZED


def _real(session: KubeSession) -> tuple[KubeLease, str]:
    name = f"contract-{secrets.token_hex(4)}"
    path = f"/apis/coordination.k8s.io/v1/namespaces/{ACCOUNT[0]}/leases/{name}"
    return KubeLease(session, ACCOUNT[0], name), path


async def test_the_api_server_says_when_it_wrote(session: KubeSession, installed: Lab) -> None:
    """In whole seconds, of each write anew: of one that changes nothing but a date, too."""
    del installed
    told: list[datetime] = []
    store = KubeLease(session, ACCOUNT[0], f"contract-{secrets.token_hex(4)}", lambda when, _took: told.append(when))
    before = datetime.now(UTC)
    first = await store.write(MINE, None)
    await asyncio.sleep(1.1)
    await store.write(replace(MINE, renewed_at=MOMENT + timedelta(seconds=1)), first)

    assert len(told) == 2
    assert before - timedelta(seconds=1) <= told[0] < told[1] <= datetime.now(UTC)
