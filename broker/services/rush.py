"""Whether many copies in Vault are due at once: then routine stands back, for copies expire and routine does not.

After Vault was away, ten thousand copies may be due together. Looking at accounts again and writing statuses that tell
good news of copies would take more of the API server then than renewing them does.
"""

from collections.abc import Callable

from broker.ports import Clock

LATE_SECONDS = 1.0
"""How long a copy has been due that nobody looks at, where there are more than can be looked at at once."""

LONGEST_SECONDS = 120.0
"""How long routine stands back at most, and for half of the time after that."""


class Rush:
    """Tells whether there is one. ``late`` says for how many seconds the oldest copy has been due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._on = False
        self._left = LONGEST_SECONDS
        self._asked_at = clock.monotonic()
        self.late: Callable[[], float] = lambda: 0.0

    @property
    def on(self) -> bool:
        """Tell whether what is routine should stand back."""
        now = self._clock.monotonic()
        since, self._asked_at = now - self._asked_at, now
        self._left = max(0.0, min(LONGEST_SECONDS, self._left + (-since if self._on else since)))
        self._on = self._left > 0 and self.late() >= LATE_SECONDS
        return self._on
