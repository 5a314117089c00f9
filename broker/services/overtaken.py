"""Statuses that were not written because their resource had changed: they wait until it is known how."""

from dataclasses import dataclass

from broker.model.client import ClientId
from broker.ports import Clock, Registration

AGAIN_SECONDS = 0.1
"""How long after a change is heard of a status is written that it overtook: many changes in a row are one."""

LONGEST_SECONDS = 60.0
"""After so long it is tried again, whatever was heard."""


@dataclass(frozen=True, slots=True)
class _Mark:
    version: str
    until: float


class Overtaken:
    """Sees to it that no version of a resource is written over twice in vain: each change costs one call at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: dict[ClientId, _Mark] = {}

    def note(self, registration: Registration) -> None:
        """Take note that a registration is not what the API server has."""
        until = self._clock.monotonic() + LONGEST_SECONDS
        self._marks[registration.id] = _Mark(registration.resource_version, until)

    def wait(self, registration: Registration) -> float:
        """Return for how many seconds at most there is no use in writing over what is known; 0 where there is."""
        mark = self._marks.get(registration.id)
        if mark is None:
            return 0.0
        left = mark.until - self._clock.monotonic()
        if mark.version == registration.resource_version and left > 0:
            return left
        del self._marks[registration.id]
        return 0.0

    def forget(self, client_id: ClientId) -> bool:
        """Forget a client's, and tell whether there was one."""
        return self._marks.pop(client_id, None) is not None
