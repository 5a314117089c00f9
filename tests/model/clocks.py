"""Clocks that are wrong: each machine's is ahead of the true time by seconds of its own; durations are true."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(slots=True)
class MachineClock:
    """Implements Clock, by the time of a loop. ``set_at`` is when somebody set it last, ``ahead`` how wrong it is."""

    loop: asyncio.AbstractEventLoop
    ahead: float = 0.0
    set_at: float = float("-inf")

    def now(self) -> datetime:
        """Return its date and time."""
        return START + timedelta(seconds=self.loop.time() + self.ahead)

    def monotonic(self) -> float:
        """Return the seconds since the beginning."""
        return self.loop.time()

    def set(self, ahead: float) -> None:
        """Set it."""
        if ahead != self.ahead:
            self.ahead, self.set_at = ahead, self.loop.time()
