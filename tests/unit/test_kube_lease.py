"""What the broker says about its Lease, and what it makes of answers that no API server should give."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.errors import BrokerError, Reason
from broker.kube.lease import KubeLease
from broker.kube.session import KubeSession
from broker.model.lease import LeaseRecord, Term
from tests.support.asked import answered, body, document, line, status
from tests.support.certificates import Authority
from tests.support.scripted import Reply, answer, says, scripted

TERM = Term("mine", 15, None, None, 2)
METADATA = {"name": "tokenbroker", "uid": "u-1", "resourceVersion": "7"}
SPEC = {"holderIdentity": "mine", "leaseDurationSeconds": 15, "leaseTransitions": 2}
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEASES = "/apis/coordination.k8s.io/v1/namespaces/tokenbroker/leases"


def _lease(**changed: Any) -> Reply:
    return says(answer(200, orjson.dumps({"metadata": METADATA, "spec": SPEC, **changed})))


async def _read(folder: Path, reply: Reply) -> tuple[LeaseRecord | None, bytes]:
    (folder / "token").write_text("own.token")
    ca_file = Authority.create(folder, "test").file
    async with scripted(reply) as server, KubeSession(server.url, ca_file, folder / "token", 5) as session:
        return await KubeLease(session, "tokenbroker", "tokenbroker").read(), server.requests[0]


async def test_a_lease_is_read_from_no_cache(tmp_path: Path) -> None:
    """A resourceVersion in the query would allow an older answer."""
    record, request = await _read(tmp_path, _lease())

    assert record == LeaseRecord(TERM, "u-1", "7")
    assert request.startswith(
        b"GET /apis/coordination.k8s.io/v1/namespaces/tokenbroker/leases/tokenbroker HTTP/1.1\r\n"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": None},
        {"spec": "x"},
        {"metadata": None},
        {"metadata": METADATA | {"resourceVersion": ""}},
        {"metadata": METADATA | {"resourceVersion": 7}},
        {"metadata": METADATA | {"uid": None}},
        {"spec": SPEC | {"holderIdentity": 1}},
        {"spec": SPEC | {"leaseDurationSeconds": "15"}},
        {"spec": SPEC | {"leaseDurationSeconds": True}},
        {"spec": SPEC | {"leaseDurationSeconds": 0}},
        {"spec": SPEC | {"leaseDurationSeconds": None}},
        {"spec": SPEC | {"leaseTransitions": 1.5}},
        {"spec": SPEC | {"renewTime": "yesterday"}},
    ],
    ids=str,
)
async def test_what_is_no_lease_is_an_error(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Nothing is guessed: the operator is told which Lease, and what to do."""
    with pytest.raises(BrokerError, match="Lease tokenbroker/tokenbroker cannot be read") as caught:
        await _read(tmp_path, _lease(**changed))

    assert caught.value.reason is Reason.KUBERNETES_UNAVAILABLE


@pytest.mark.parametrize("page", [b"[]", b"{}", b"null", b"<html>"])
async def test_what_is_no_object_is_an_error(tmp_path: Path, page: bytes) -> None:
    """An answer of somebody else in between is no crash."""
    with pytest.raises(BrokerError) as caught:
        await _read(tmp_path, says(answer(200, page)))

    assert caught.value.reason is Reason.KUBERNETES_UNAVAILABLE


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, Reason.BROKER_NOT_AUTHORIZED),
        (403, Reason.BROKER_NOT_AUTHORIZED),
        (422, Reason.BROKER_NOT_AUTHORIZED),
        (429, Reason.KUBERNETES_UNAVAILABLE),
        (500, Reason.KUBERNETES_UNAVAILABLE),
    ],
)
async def test_a_refusal_and_a_failure_are_told_apart(tmp_path: Path, code: int, reason: Reason) -> None:
    """One needs an operator, the other passes."""
    with pytest.raises(BrokerError) as caught:
        await _read(tmp_path, says(answer(code)))

    assert caught.value.reason is reason


async def test_a_lease_that_was_given_back_is_held_by_nobody(tmp_path: Path) -> None:
    """As others write it, too: without a holder, and held for no time."""
    record, _ = await _read(tmp_path, _lease(spec={"holderIdentity": "", "leaseDurationSeconds": 0}))

    assert record == LeaseRecord(Term("", 0, None, None, 0), "u-1", "7")


async def test_a_lease_that_is_not_there_is_made(tmp_path: Path) -> None:
    """Under its name; times as Kubernetes has them, in UTC with six digits."""
    east = timezone(timedelta(hours=2))
    term = replace(TERM, acquired_at=datetime(2026, 11, 24, 14, 0, tzinfo=east), renewed_at=NOON)
    async with answered(tmp_path, document({"metadata": METADATA, "spec": SPEC}, 201)) as (session, server):
        written = await KubeLease(session, "tokenbroker", "leader").write(term, None)

    assert written == LeaseRecord(TERM, "u-1", "7")
    assert line(server.requests[0]) == f"POST {LEASES}"
    assert body(server.requests[0])["metadata"].keys() == {"name", "labels"}
    assert body(server.requests[0])["spec"] == {
        "holderIdentity": "mine",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-11-24T12:00:00.000000Z",
        "renewTime": "2026-11-24T12:00:00.000000Z",
        "leaseTransitions": 2,
    }


async def test_a_lease_is_written_over_exactly_what_was_read(tmp_path: Path) -> None:
    """By UID and version: else two could take it, or one that was deleted would come back."""
    async with answered(tmp_path, document({"metadata": METADATA, "spec": SPEC})) as (session, server):
        await KubeLease(session, "tokenbroker", "leader").write(TERM, LeaseRecord(TERM, "u-1", "6"))

    sent = body(server.requests[0])["metadata"]
    assert line(server.requests[0]) == f"PUT {LEASES}/leader"
    assert (sent["name"], sent["uid"], sent["resourceVersion"]) == ("leader", "u-1", "6")


@pytest.mark.parametrize("over", [None, LeaseRecord(TERM, "u-1", "6")], ids=["made", "written over"])
async def test_who_was_overtaken_holds_nothing(tmp_path: Path, over: LeaseRecord | None) -> None:
    """Somebody else has made it, or written it since: no failure, and nothing is held."""
    async with answered(tmp_path, status(409)) as (session, _):
        assert await KubeLease(session, "tokenbroker", "leader").write(TERM, over) is None


async def test_a_lease_that_does_not_exist_is_no_record(tmp_path: Path) -> None:
    """It is made then."""
    record, _ = await _read(tmp_path, status(404))

    assert record is None


RENEWED = {"manager": "tokenbroker", "fieldsV1": {"f:spec": {"f:renewTime": {}}}}
OTHER: dict[str, Any] = {"f:spec": {"f:leaseDurationSeconds": {}}}
"""What somebody else has written: with a time that he chose."""


@pytest.mark.parametrize(
    ("fields", "heard"),
    [
        ([{"time": "2099-01-01T00:00:00Z", "fieldsV1": OTHER}, RENEWED | {"time": "2026-11-24T12:00:00Z"}], [NOON]),
        ([{"time": "2026-11-24T12:00:00Z"}, {"time": "2026-11-24T12:00:00Z", "fieldsV1": OTHER}], []),
        ([RENEWED | {"time": "2026-11-24T12:00:00Z"}] * 2, []),
        ([RENEWED], []),
        ([RENEWED | {"time": 7}], []),
        ([RENEWED | {"time": "soon"}], []),
        ([{"fieldsV1": 7}], []),
        ([], []),
        (None, []),
    ],
    ids=str,
)
async def test_the_api_server_says_when_it_was_written(tmp_path: Path, fields: Any, heard: list[datetime]) -> None:
    """So whoever leads knows what time it is; where that is not said, nothing is guessed."""
    (tmp_path / "token").write_text("own.token")
    ca_file, told = Authority.create(tmp_path, "test").file, list[datetime]()
    written = _lease(metadata=METADATA | {"managedFields": fields})
    async with scripted(written) as server, KubeSession(server.url, ca_file, tmp_path / "token", 5) as session:
        record = await KubeLease(session, "tokenbroker", "tokenbroker", lambda when, _took: told.append(when)).write(
            TERM, None
        )

    assert record == LeaseRecord(TERM, "u-1", "7")
    assert told == heard


async def test_a_lease_that_was_only_read_says_nothing_of_now(tmp_path: Path) -> None:
    """Somebody may have written it long ago."""
    (tmp_path / "token").write_text("own.token")
    ca_file, told = Authority.create(tmp_path, "test").file, list[datetime]()
    found = _lease(metadata=METADATA | {"managedFields": [RENEWED | {"time": "2026-11-24T12:00:00Z"}]})
    async with scripted(found) as server, KubeSession(server.url, ca_file, tmp_path / "token", 5) as session:
        await KubeLease(session, "tokenbroker", "tokenbroker", lambda when, _took: told.append(when)).read()

    assert told == []
