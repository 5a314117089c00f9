"""Whether many copies in Vault are due at once: then routine stands back, for copies expire and routine does not.

After Vault was away, ten thousand copies may be due together. Looking at accounts again and writing statuses that tell
good news of copies would take more of the API server then than renewing them does.
"""

from collections.abc import Callable

from broker.ports import Clock

LATE_SECONDS = 1.0
"""How long a copy has been due that nobody looks at, where there are more than can be looked at at once."""

LONGEST_SECONDS = 240.0
"""How long routine stands back at most; then it goes on for half of this, and stands back for half of this, in turn."""


class Rush:
    """Tells whether there is one. ``late`` says for how many seconds the oldest copy has been due.

    How long it lasts goes by the clock: those who ask, in whatever order and however often, get the same answers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._on = False
        self._used_up = False
        self._left = LONGEST_SECONDS
        self._asked_at = clock.monotonic()
        self.late: Callable[[], float] = lambda: 0.0

    @property
    def on(self) -> bool:
        """Tell whether what is routine should stand back."""
        now, late = self._clock.monotonic(), self.late() >= LATE_SECONDS
        since, self._asked_at = now - self._asked_at, now
        if not self._on:
            self._left = min(LONGEST_SECONDS, self._left + since)
        elif late:  # else it ended meanwhile, and nobody knows when
            self._left = max(0.0, self._left - since)
        self._used_up = self._left < LONGEST_SECONDS / 2 if self._used_up else self._left == 0
        self._on = late and not self._used_up
        return self._on
