"""How many tokens each client was handed out lately, so that beyond its rate it is answered with 429."""

import math

from broker.errors import BrokerError, Reason
from broker.model.client import Client, ClientId
from broker.model.decision import Rules
from broker.model.rate import Rate, effective
from broker.ports import Clock
from broker.services.storms.token_bucket import Level

_DUST = 1e-6
"""Of a token: what sums of fractions are wrong by."""


class ClientRates:
    """A bucket for each client that has a rate, by the count of this process. A changed rate holds at once.

    The rate is the client's own, within what the operator allows in its namespace.
    """

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._levels: dict[ClientId, Level] = {}

    def rate(self, client: Client) -> Rate | None:
        """Return the rate that holds for a client, or None where there is none."""
        return effective(client.rate, self._rules.limits(client.id.namespace).rate)

    def take(self, client: Client) -> None:
        """Take one token. Raises BrokerError(rate_limited) and takes none where there is none."""
        rate = self.rate(client)
        if rate is None:
            return
        level = self._level(client.id, rate)
        if level.tokens < 1 - _DUST:
            raise self._refusal(rate, level)
        level.tokens -= 1

    def give_back(self, client: Client) -> None:
        """Take back a token that was not handed out after all."""
        level = self._levels.get(client.id)
        if level is not None:
            level.tokens += 1

    def fault(self, client: Client) -> BrokerError | None:
        """Return with what :meth:`take` would refuse now, or None."""
        rate = self.rate(client)
        if rate is None:
            return None
        level = self._level(client.id, rate)
        return self._refusal(rate, level) if level.tokens < 1 - _DUST else None

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""
        self._levels.pop(client_id, None)

    def _level(self, client_id: ClientId, rate: Rate) -> Level:
        now = self._clock.monotonic()
        level = self._levels.get(client_id)
        if level is None:
            level = self._levels[client_id] = Level(rate.burst, now)
        level.refill(now, per_second=rate.per_second, burst=rate.burst)
        return level

    def _refusal(self, rate: Rate, level: Level) -> BrokerError:
        return BrokerError(
            Reason.RATE_LIMITED,
            f"This client was handed out as many tokens as it may be: {rate}.",
            retry_after=max(1, math.ceil((1 - level.tokens - _DUST) / rate.per_second)),
        )
