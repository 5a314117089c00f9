"""What the broker says about its Lease, and what it makes of answers that no API server should give."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.errors import BrokerError, Reason
from broker.kube.lease import KubeLease
from broker.kube.session import KubeSession
from broker.model.lease import LeaseRecord, Term
from tests.support.certificates import Authority
from tests.support.scripted import Reply, answer, says, scripted

TERM = Term("mine", 15, None, None, 2)
METADATA = {"name": "tokenbroker", "uid": "u-1", "resourceVersion": "7"}
SPEC = {"holderIdentity": "mine", "leaseDurationSeconds": 15, "leaseTransitions": 2}


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


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b"<html>"])
async def test_what_is_no_object_is_an_error(tmp_path: Path, body: bytes) -> None:
    """An answer of somebody else in between is no crash."""
    with pytest.raises(BrokerError) as caught:
        await _read(tmp_path, says(answer(200, body)))

    assert caught.value.reason is Reason.KUBERNETES_UNAVAILABLE


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.BROKER_NOT_AUTHORIZED),
        (403, Reason.BROKER_NOT_AUTHORIZED),
        (422, Reason.BROKER_NOT_AUTHORIZED),
        (429, Reason.KUBERNETES_UNAVAILABLE),
        (500, Reason.KUBERNETES_UNAVAILABLE),
    ],
)
async def test_a_refusal_and_a_failure_are_told_apart(tmp_path: Path, status: int, reason: Reason) -> None:
    """One needs an operator, the other passes."""
    with pytest.raises(BrokerError) as caught:
        await _read(tmp_path, says(answer(status)))

    assert caught.value.reason is reason
