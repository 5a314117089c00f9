"""The Lease (coordination.k8s.io/v1) that replicas lead by."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, unavailable
from broker.kube.session import KubeSession
from broker.model.lease import LeaseRecord, Term

UNFIT = "tokenbroker.dev/unfit"
CANDIDATE = "tokenbroker.dev/candidate"
"""Annotations: the holder cannot do its work; who would do it instead."""

Scalar = TypeVar("Scalar", str, int)


Heard = Callable[[datetime, float], None]


def _nobody_listens(_moment: datetime, _took: float) -> None:
    """Serve where nobody wants to know the time."""


class KubeLease:
    """One Lease, by name; implements :class:`broker.ports.LeaseStore`.

    ``heard`` is told the second in which a write was carried out, by the API server's clock, and how many seconds the
    call took.
    """

    def __init__(self, session: KubeSession, namespace: str, name: str, heard: Heard = _nobody_listens) -> None:
        self._session = session
        self._heard = heard
        self._name = name
        self._all = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._all}/{name}"
        self._where = f"the Lease {namespace}/{name}"

    async def read(self) -> LeaseRecord | None:
        """Return what is there; see :meth:`broker.ports.LeaseStore.read`."""
        answer = await self._session.call("GET", self._path)  # without a resourceVersion: from etcd, from no cache
        return None if answer.status == 404 else self._record(answer)  # noqa: PLR2004 - 404 NotFound

    async def write(self, term: Term, over: LeaseRecord | None) -> LeaseRecord | None:
        """Write over exactly this record; see :meth:`broker.ports.LeaseStore.write`."""
        began = asyncio.get_running_loop().time()
        if over is None:
            answer = await self._session.call("POST", self._all, self._manifest(term, {}))
        else:
            # The uid, since a PUT of a Lease that was deleted makes it again, whatever its resourceVersion.
            body = self._manifest(term, {"uid": over.uid, "resourceVersion": over.version})
            answer = await self._session.call("PUT", self._path, body)
        if answer.status == 409:  # noqa: PLR2004 - 409 Conflict, AlreadyExists
            return None
        record, written_at = self._record(answer), _written_at(answer.json())
        if written_at is not None:
            self._heard(written_at, asyncio.get_running_loop().time() - began)
        return record

    def _manifest(self, term: Term, version: dict[str, str]) -> dict[str, Any]:
        labels = {"app.kubernetes.io/managed-by": "tokenbroker"}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "labels": labels, **_annotations(term), **version},
            "spec": {
                "holderIdentity": term.holder,
                "leaseDurationSeconds": term.duration_seconds,
                "acquireTime": _micro_time(term.acquired_at),
                "renewTime": _micro_time(term.renewed_at),
                "leaseTransitions": term.transitions,
            },
        }

    def _record(self, answer: Answer) -> LeaseRecord:
        if not answer.ok:
            raise self._refusal(answer)
        try:
            return _parsed(answer.json())
        except (KeyError, TypeError, ValueError) as error:
            raise unavailable(
                f"{self._where} cannot be read ({type(error).__name__}: {error}); delete it, and it is made again"
            ) from None

    def _refusal(self, answer: Answer) -> BrokerError:
        if answer.status in {401, 403, 404, 422}:
            return BrokerError(
                Reason.BROKER_NOT_AUTHORIZED,
                "The broker may not choose its leader at the moment; its operators have been told.",
                operator_detail=(
                    f"The broker may not use {self._where}: apply deploy/base (rbac.yaml), and let lease.name and "
                    f"namespace be what stands there. The API server said: {answer.message()}"
                ),
                retry_after=30,
            )
        return unavailable(f"it answered {answer.status} about {self._where}", answer.retry_after)


def _parsed(lease: Any) -> LeaseRecord:
    """Return the record. Raises KeyError, TypeError and ValueError where it is none, or held for no known time."""
    spec = lease["spec"]
    holder = _field(spec, "holderIdentity", "")
    duration = _field(spec, "leaseDurationSeconds", 0)
    if holder and duration <= 0:
        raise ValueError("leaseDurationSeconds must be above 0")
    metadata = lease["metadata"]
    uid, version = (_field(metadata, key, "") for key in ("uid", "resourceVersion"))
    if not uid or not version:
        raise ValueError("it has no uid or no resourceVersion")
    acquired, renewed = (_time(_field(spec, key, "")) for key in ("acquireTime", "renewTime"))
    said = metadata.get("annotations") or {}
    unfit, candidate = _field(said, UNFIT, "") == "true", _field(said, CANDIDATE, "")
    transitions = _field(spec, "leaseTransitions", 0)
    return LeaseRecord(Term(holder, duration, acquired, renewed, transitions, unfit, candidate), uid, version)


def _written_at(lease: Any) -> datetime | None:
    """Return when a Lease was renewed last, as the API server notes it of each writer, or None where it does not.

    A writer may name any times of its own. But each renewal changes ``renewTime``, so that the API server takes the
    field from everybody else, and gives it to the entry of this write, with its own time.
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    try:
        entries = lease["metadata"]["managedFields"]
        times = [one["time"] for one in entries if "f:renewTime" in one.get("fieldsV1", {}).get("f:spec", {})]
        return datetime.fromisoformat(times[0]) if len(times) == 1 else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _annotations(term: Term) -> dict[str, Any]:
    said = {UNFIT: "true" if term.unfit else "", CANDIDATE: term.candidate}
    said = {name: value for name, value in said.items() if value}
    return {"annotations": said} if said else {}


def _field(source: Any, key: str, default: Scalar) -> Scalar:
    """Return a value of the default's type, or the default where there is none; a bool is no int."""
    if not isinstance(source, dict):
        raise TypeError(f"what should hold {key} is not an object")
    value = source.get(key)
    if value is None:
        return default
    if type(value) is not type(default):
        raise TypeError(f"{key} is not {type(default).__name__}")
    return value


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _micro_time(moment: datetime | None) -> str | None:
    """Return Kubernetes' MicroTime: RFC 3339 with exactly six digits of the second."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
