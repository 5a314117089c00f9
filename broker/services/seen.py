"""What a change of a registration has to be about for its client to be visited. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import orjson

from broker.ports import Registration


@dataclass(frozen=True, slots=True)
class Seen:
    """What about a registration decides whether a change of it is news.

    ``prepared`` is a digest of what the leader says, which every replica keeps for every client.
    """

    uid: str
    generation: int
    deleting: bool
    rotate_requested: datetime | None
    finalizers: tuple[str, ...]
    prepared: bytes

    @classmethod
    def of(cls, registration: Registration) -> Self:
        """Return it of a registration."""
        client = registration.client
        return cls(
            registration.uid,
            registration.generation,
            registration.deleting,
            client.rotate_requested if client is not None else None,
            registration.finalizers,
            _digest(registration.status),
        )

    def is_news_after(self, before: Self | None, *, following: bool) -> bool:
        """Tell whether a visit is due: not for a status that changed alone, but where it is another replica's word.

        Nor for finalizers that came; one that went may have been the broker's.
        """
        if before is None or set(before.finalizers) - set(self.finalizers):
            return True
        if following and before.prepared != self.prepared:
            return True
        return replace(self, finalizers=(), prepared=b"") != replace(before, finalizers=(), prepared=b"")


def _digest(status: Mapping[str, Any]) -> bytes:
    status = dict(status.items())
    listed = status.get("grants", ())
    said = [[it.get("name"), it.get("subject"), it.get("anchorUID"), it.get("accountUID")] for it in listed]
    return hashlib.blake2b(orjson.dumps([status.get("observedGeneration"), said]), digest_size=16).digest()
