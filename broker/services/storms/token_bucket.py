"""A rate that calls keep to on the average, with bursts."""

from dataclasses import dataclass

from broker.ports import Clock


@dataclass(slots=True)
class Level:
    """So many tokens were left at that time, by the monotonic clock."""

    tokens: float
    at: float

    def refill(self, now: float, *, per_second: float, burst: int) -> None:
        """Add what has come back since, up to ``burst``."""
        self.tokens = min(burst, self.tokens + (now - self.at) * per_second)
        self.at = now


class TokenBucket:
    """``qps`` tokens a second, of which ``burst`` are kept; named as in client-go (``util/flowcontrol``).

    Nobody waits here: who reserves tokens is told when they will be there.
    """

    def __init__(self, clock: Clock, *, qps: float, burst: int) -> None:
        self._clock = clock
        self._qps = qps
        self._burst = burst
        self._level = Level(float(burst), clock.monotonic())

    def reserve(self, tokens: int) -> float:
        """Take tokens, and return after how many seconds they are there; those who ask later wait for later ones."""
        self._level.refill(self._clock.monotonic(), per_second=self._qps, burst=self._burst)
        self._level.tokens -= tokens
        return max(0.0, -self._level.tokens / self._qps)
