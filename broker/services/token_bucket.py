"""A rate that calls keep to on the average, with bursts."""

from broker.ports import Clock


class TokenBucket:
    """``qps`` tokens a second, of which ``burst`` are kept; named as in client-go (``util/flowcontrol``).

    Nobody waits here: who reserves tokens is told when they will be there.
    """

    def __init__(self, clock: Clock, *, qps: float, burst: int) -> None:
        self._clock = clock
        self._qps = qps
        self._burst = burst
        self._tokens = float(burst)
        self._at = clock.monotonic()

    def reserve(self, tokens: int) -> float:
        """Take tokens, and return after how many seconds they are there; those who ask later wait for later ones."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps) - tokens
        self._at = now
        return max(0.0, -self._tokens / self._qps)
