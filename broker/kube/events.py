"""Kubernetes Events on TokenClients and on the Lease (events.k8s.io/v1)."""

import secrets
from collections.abc import Mapping
from typing import Protocol

import structlog

from broker.errors import BrokerError
from broker.kube.session import KubeSession
from broker.model.client import API_VERSION
from broker.ports import Clock, LeaseStore, Registration

log = structlog.get_logger(__name__)


class EventMetrics(Protocol):
    """What is told about Events."""

    def event_lost(self) -> None:
        """Count an Event that could not be recorded."""


class EventSender:
    """Sends Events in the broker's own name (events.k8s.io/v1)."""

    def __init__(self, session: KubeSession, clock: Clock, instance: str, metrics: EventMetrics) -> None:
        self._session = session
        self._clock = clock
        self.instance = instance
        self._metrics = metrics

    async def send(self, regarding: Mapping[str, str], *, action: str, reason: str, note: str, warning: bool) -> None:
        """Send one Event; one that is lost is counted and logged, because it must not stop anything."""
        namespace, name = regarding["namespace"], regarding["name"]
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{secrets.token_hex(8)}", "namespace": namespace},
            "eventTime": self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "tokenbroker.dev/tokenbroker",
            "reportingInstance": self.instance,
            "action": action,
            "reason": reason,
            "note": note,
            "type": "Warning" if warning else "Normal",
            "regarding": regarding,
        }
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        try:
            answer = await self._session.call("POST", path, event)
            lost = "" if answer.ok else answer.message()
        except BrokerError as error:
            lost = error.operator_detail
        if lost:
            self._metrics.event_lost()
            log.warning("event.lost", about=f"{namespace}/{name}", event_reason=reason, detail=lost)


class KubeEvents:
    """Events on TokenClients; implements :class:`broker.ports.EventRecorder`."""

    def __init__(self, sender: EventSender) -> None:
        self._sender = sender

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """Record one Event; see :meth:`EventSender.send`."""
        regarding = {
            "apiVersion": API_VERSION,
            "kind": "TokenClient",
            "namespace": registration.id.namespace,
            "name": registration.id.name,
            "uid": registration.uid,
        }
        await self._sender.send(regarding, action="Reconcile", reason=event_reason, note=note, warning=warning)


class KubeLeaseEvents:
    """Events on the Lease, as client-go records them; implements :class:`broker.ports.LeadRecorder`."""

    def __init__(self, sender: EventSender, lease: LeaseStore, namespace: str, name: str) -> None:
        self._sender = sender
        self._lease = lease
        self._regarding = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "namespace": namespace,
            "name": name,
        }

    async def record(self, *, leading: bool) -> None:
        """Record that this process leads, or leads no more. Raises BrokerError where the Lease cannot be read."""
        held = await self._lease.read()
        regarding = self._regarding | ({"uid": held.uid} if held is not None else {})
        note = f"{self._sender.instance} {'became leader' if leading else 'stopped leading'}"
        await self._sender.send(regarding, action="LeaderElection", reason="LeaderElection", note=note, warning=False)
