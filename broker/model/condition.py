"""Conditions, as Kubernetes' conventions have them. Pure.

Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.model.times import timestamp

MAX_MESSAGE_CHARACTERS = 4096
"""What the schema lets a condition say; a longer message would keep the whole status from being written."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A Kubernetes condition without its transition time."""

    type: str
    status: str
    reason: str
    message: str


def with_times(condition: Condition, generation: int, now: datetime, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return it as the resource has it; the transition time is that of ``previous`` where nothing has changed."""
    before: Mapping[str, Any] = next(
        (old for old in previous.get("conditions", ()) if old.get("type") == condition.type), {}
    )
    same = before.get("status") == condition.status and before.get("lastTransitionTime")
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message[:MAX_MESSAGE_CHARACTERS],
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if same else timestamp(now),
    }
