"""What a change of a registration has to be about for its client to be visited. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from broker.ports import Registration


@dataclass(frozen=True, slots=True)
class Seen:
    """What about a registration decides whether a change of it is news; ``prepared`` is what the leader says."""

    uid: str
    generation: int
    deleting: bool
    rotate_requested: datetime | None
    finalizers: tuple[str, ...]
    prepared: tuple[object, ...]

    @classmethod
    def of(cls, registration: Registration) -> Self:
        """Return it of a registration."""
        client, listed = registration.client, registration.status.get("grants", ())
        return cls(
            registration.uid,
            registration.generation,
            registration.deleting,
            client.rotate_requested if client is not None else None,
            registration.finalizers,
            (
                registration.status.get("observedGeneration"),
                *((it.get("name"), it.get("subject"), it.get("anchorUID"), it.get("accountUID")) for it in listed),
            ),
        )

    def is_news_after(self, before: Self | None, *, following: bool) -> bool:
        """Tell whether a visit is due: not for a status that changed alone, but where it is another replica's word.

        Nor for finalizers that came; one that went may have been the broker's.
        """
        if before is None or set(before.finalizers) - set(self.finalizers):
            return True
        if following and before.prepared != self.prepared:
            return True
        return replace(self, finalizers=(), prepared=()) != replace(before, finalizers=(), prepared=())
