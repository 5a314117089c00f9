"""When a status may be written: what tells of nothing but copies in Vault waits for its turn, all else does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.model.client import ClientId
from broker.model.vault_status import differs_about_vault_only
from broker.ports import Clock, Registration
from broker.services.rush import LONGEST_SECONDS, Rush
from broker.services.storms.token_bucket import TokenBucket

ROUTINE_QPS, ROUTINE_BURST = 25.0, 5
"""How many statuses are written a second, and at once, that tell of nothing but copies in Vault."""


@dataclass(frozen=True, slots=True)
class Told:
    """The news in a status: whether there is some of the client, and the grants with whose copies there is trouble."""

    news: bool
    troubles: frozenset[str]


class StatusPace:
    """Keeps the API server from having to take ten thousand statuses at once: Vault may fail, and be back, for all."""

    def __init__(self, clock: Clock, rush: Rush) -> None:
        self._clock = clock
        self._rush = rush
        self._routine = TokenBucket(clock, qps=ROUTINE_QPS, burst=ROUTINE_BURST)
        self._turns: dict[ClientId, float] = {}
        self._news: set[ClientId] = set()
        self._troubles: dict[ClientId, set[str]] = {}
        """Grants whose copies are not as they should be, where nothing has been said of that."""
        self._stood_back: dict[ClientId, float] = {}

    def news(self, client_id: ClientId) -> None:
        """Take note of something else than that a copy is as it should be."""
        self._news.add(client_id)

    def copy_is(self, client_id: ClientId, grant: str, *, good: bool) -> None:
        """Take note of how a copy is: trouble is news, unless it is over before anything was said of it."""
        troubles = self._troubles.setdefault(client_id, set())
        troubles.discard(grant) if good else troubles.add(grant)
        if not troubles:
            del self._troubles[client_id]

    def stands_back(self, registration: Registration) -> float:
        """Return for how many seconds at most there is no need to work out a status; 0 where there is one now.

        There is none where it would tell nothing but good news of copies while many are due: for no client for longer
        than a rush lasts, counted from when it stood back first.
        """
        said = registration.status.get("observedGeneration") == registration.generation
        if not said or self._is_news(registration.id) or not self._rush.on:
            return 0.0
        now = self._clock.monotonic()
        return max(0.0, self._stood_back.setdefault(registration.id, now) + LONGEST_SECONDS - now)

    def begin(self, client_id: ClientId) -> Told:
        """Take note that a status is written now, and return the news that it tells, for :meth:`untold`."""
        news, troubles = client_id in self._news, self._troubles.pop(client_id, set())
        self._news.discard(client_id)
        self._stood_back.pop(client_id, None)
        return Told(news, frozenset(troubles))

    def untold(self, client_id: ClientId, told: Told) -> None:
        """Take note that a status could not be written: its news is news still."""
        if told.news:
            self._news.add(client_id)
        for grant in told.troubles:
            self.copy_is(client_id, grant, good=False)

    def overtaken(self, client_id: ClientId, told: Told) -> None:
        """Take note that another change came before a status: its news is news still, and its turn is its own still."""
        self.untold(client_id, told)
        self._turns[client_id] = self._clock.monotonic()

    def wait(self, registration: Registration, status: Mapping[str, Any]) -> float:
        """Return for how many seconds writing a status has to wait; 0 where it is to be written now."""
        turn = self._turns.pop(registration.id, None)
        if not differs_about_vault_only(status, registration.status):
            return 0.0
        now = self._clock.monotonic()
        if turn is None:
            turn = now + self._routine.reserve(1)
        if turn > now:
            self._turns[registration.id] = turn
        return max(0.0, turn - now)

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""
        self._turns.pop(client_id, None)
        self._news.discard(client_id)
        self._troubles.pop(client_id, None)
        self._stood_back.pop(client_id, None)

    def _is_news(self, client_id: ClientId) -> bool:
        return client_id in self._news or client_id in self._troubles
