"""How long ago a source was heard of: what it said counts for a while, and then nothing is decided from it."""

import asyncio
import math

from broker.errors import BrokerError, Reason


def _at_the_beginning() -> float:
    return 0.0


class Freshness:
    """The age of what is known of ``what``, which is heard of from ``source``, by the event loop's clock."""

    def __init__(self, what: str, source: str, stale_seconds: float) -> None:
        self._what = what
        self._source = source
        self._stale_seconds = stale_seconds
        self._heard = -math.inf
        self._now = _at_the_beginning

    def heard(self) -> None:
        """Note that what is known is what the source says now."""
        self._now = asyncio.get_running_loop().time  # it is asked several times a request
        self._heard = self._now()

    @property
    def age(self) -> float:
        """How many seconds ago the source was heard of; infinite where it never was."""
        return self._now() - self._heard

    @property
    def fresh(self) -> bool:
        """Tell whether what is known is young enough to decide from."""
        return self.age < self._stale_seconds

    def require(self) -> None:
        """Raise BrokerError(registry_stale) where nothing is known yet, or it is too old."""
        if not self._now() - self._heard < self._stale_seconds:  # as fresh, without the way there
            age = "yet" if self._heard == -math.inf else f"for {self._stale_seconds:g} s"
            raise BrokerError(
                Reason.REGISTRY_STALE,
                f"The broker has lost sight of {self._what}; try again shortly.",
                operator_detail=f"No word from {self._source} {age}.",
                retry_after=5,
            )
