"""Failed proofs, counted for each client id and caller's address, so that guessing is answered with 429.

Nobody is locked out: a right proof is accepted before anything here is asked.
"""

from collections import OrderedDict

from broker.errors import BrokerError, Reason
from broker.ports import Clock

BURST = 20
"""How many failures at once are answered as such. Some programs fail twice at each try: Basic, then the form."""

SECONDS_EACH = 3.0
"""How long one failure counts."""

MAX_ENTRIES = 10_000
"""How many pairs are remembered, the most recent ones: made-up ids take no more memory than that."""


class FailureLimit:
    """A leaky bucket for each pair of client id and address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._empty_at: OrderedDict[int, float] = OrderedDict()

    def failed(self, client: str, remote: str) -> None:
        """Count a failure. Raises BrokerError(too_many_proofs) where the bucket is full."""
        key, now = hash((client, remote)), self._clock.monotonic()
        level = max(self._empty_at.get(key, now), now)
        wait = level + SECONDS_EACH - (now + BURST * SECONDS_EACH)
        if wait > 0:
            raise BrokerError(
                Reason.TOO_MANY_PROOFS,
                "Too many proofs failed for this client from this address. A right one is accepted at any time.",
                retry_after=int(wait) + 1,
            )
        self._empty_at[key] = level + SECONDS_EACH
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > MAX_ENTRIES:
            self._empty_at.popitem(last=False)
