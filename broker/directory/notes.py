"""What operators see of clients that stand in files: log lines, for there is no resource to write to."""

from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from broker.directory.registry import DirectoryRegistry
from broker.ports import Registration

log = structlog.get_logger(__name__)


class LoggedStatuses:
    """Logs each condition that changed and keeps the rest in memory; implements :class:`broker.ports.StatusWriter`."""

    def __init__(self, registry: DirectoryRegistry) -> None:
        self._registry = registry

    async def write(self, registration: Registration, status: Mapping[str, Any]) -> bool:
        """Log what is new: nobody else writes it."""
        before = set(_said(registration.status))
        self._registry.keep_status(registration, status)
        for kind, value, reason, message in _said(status):
            if (kind, value, reason, message) not in before:
                say = log.info if value == "True" else log.warning
                say(
                    "client.condition", client=str(registration.id), type=kind, status=value, why=reason, detail=message
                )
        return True


class LoggedEvents:
    """Logs the Events that no condition tells of; implements :class:`broker.ports.EventRecorder`."""

    def __init__(self, registry: DirectoryRegistry) -> None:
        self._registry = registry

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """Log one Event, unless it stands in a condition already."""
        known = self._registry.seen(registration.id)
        if known is None or event_reason not in {reason for _, _, reason, _ in _said(known.status)}:
            say = log.warning if warning else log.info
            say("client.event", client=str(registration.id), why=event_reason, detail=note)


def _said(status: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for condition in status.get("conditions", ()):
        yield condition["type"], condition["status"], condition["reason"], condition["message"]
