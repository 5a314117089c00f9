"""The real time."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Implements :class:`broker.ports.Clock`."""

    def now(self) -> datetime:
        """Return the date and time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that only ever grow, also while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)  # CLOCK_MONOTONIC would stand still then
