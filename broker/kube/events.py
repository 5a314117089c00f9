"""Kubernetes Events on TokenClients (events.k8s.io/v1)."""

import secrets
from typing import Protocol

import structlog

from broker.errors import BrokerError
from broker.kube.session import KubeSession
from broker.model.client import API_VERSION
from broker.ports import Clock, Registration

log = structlog.get_logger(__name__)


class EventMetrics(Protocol):
    """What is told about Events."""

    def event_lost(self) -> None:
        """Count an Event that could not be recorded."""


class KubeEvents:
    """Records Events; implements :class:`broker.ports.EventRecorder`."""

    def __init__(self, session: KubeSession, clock: Clock, instance: str, metrics: EventMetrics) -> None:
        self._session = session
        self._clock = clock
        self._instance = instance
        self._metrics = metrics

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """Record one Event; one that is lost is counted and logged, because it must not stop anything."""
        namespace, name = registration.id.namespace, registration.id.name
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{secrets.token_hex(8)}", "namespace": namespace},
            "eventTime": self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "tokenbroker.dev/tokenbroker",
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": event_reason,
            "note": note,
            "type": "Warning" if warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": "TokenClient",
                "namespace": namespace,
                "name": name,
                "uid": registration.uid,
            },
        }
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        try:
            answer = await self._session.call("POST", path, event)
            lost = "" if answer.ok else answer.message()
        except BrokerError as error:
            lost = error.operator_detail
        if lost:
            self._metrics.event_lost()
            log.warning("event.lost", client=str(registration.id), event_reason=event_reason, detail=lost)
