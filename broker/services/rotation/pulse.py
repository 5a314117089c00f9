"""Whether this replica reaches Vault, and whether Vault still has what was there: asked every 10 seconds.

One listing of a single folder, whatever the number of clients. Every replica asks, for each has to know whether it
could lead in place of one that is cut off (:class:`broker.services.leadership.Fitness`). Once somebody got no answer it
takes more to be believed than a listing, which a standby gives that reaches no active server and takes no writes.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Protocol

import structlog

from broker.errors import BrokerError, Reason
from broker.model.vault_path import VaultPlace
from broker.ports import Clock, VaultStore

log = structlog.get_logger(__name__)

EVERY_SECONDS = 10.0

AWAY_SECONDS = 3.0
"""How often it is asked while it gives no answer."""

FIT_SECONDS = 20.0
"""For so long an answer shows that this replica reaches Vault: two times of asking."""

UNFIT_SECONDS = 45.0
"""Without an answer for so long, another replica should lead, if one reaches Vault.

It is longer than FIT_SECONDS by more than the time between two answers: where Vault is away for all, none is fit any
more when the leader calls itself unfit.
"""

EARLIEST = 0.8


class PulseMetrics(Protocol):
    """What is told about Vault."""

    def vault_asked(self, failure: Reason | None) -> None:
        """Set why Vault did not do what it was last asked for; None where it did."""


class VaultPulse:
    """Asks for the namespaces that have copies; ``lost`` is told of those that were there and are no more.

    So a Vault that came back without its data, or whose engine was made anew, is filled again at once. ``back`` is
    told when Vault answers again. Implements :class:`broker.services.leadership.Fitness` and
    :class:`broker.services.rotation.outage.Reach`.
    """

    def __init__(self, *, store: VaultStore, place: VaultPlace, clock: Clock, metrics: PulseMetrics) -> None:
        self._store = store
        self._place = place
        self._clock = clock
        self._metrics = metrics
        self._namespaces: frozenset[str] = frozenset()
        self._reached_at: float | None = None
        self._since = clock.monotonic()
        self._failure = ""
        self._doubted = asyncio.Event()
        self.away: BrokerError | None = None
        self.lost: Callable[[Collection[str]], None] = lambda _namespaces: None
        self.back: Callable[[], None] = lambda: None

    @property
    def fit(self) -> bool:
        """Tell whether Vault did for this replica what a leader needs a moment ago."""
        return self._reached_at is not None and self._clock.monotonic() - self._reached_at < FIT_SECONDS

    @property
    def unfit(self) -> bool:
        """Tell whether it has not done so for long."""
        return self._clock.monotonic() - self._since >= UNFIT_SECONDS

    def doubt(self) -> None:
        """Ask soon: somebody got no answer."""
        self._doubted.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            doubted = self._doubted.is_set()
            self._doubted.clear()
            await self.beat(doubted=doubted)
            early = EARLIEST + (1 - EARLIEST) * random.random()  # noqa: S311 - jitter, not a secret
            await asyncio.sleep(AWAY_SECONDS * early)
            if self.away is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout((EVERY_SECONDS - AWAY_SECONDS) * early):
                        await self._doubted.wait()

    async def beat(self, *, doubted: bool = False) -> None:
        """Ask once; the first of several failures alike is logged, and when it is over.

        Where Vault was away, or is ``doubted``, it has to take a write.
        """
        try:
            if doubted or self.away is not None:
                await self._store.reach_active()
            names = await self._store.children(self._place.root)
        except BrokerError as error:
            self.away = error if error.reason is Reason.VAULT_UNAVAILABLE else None
            self._failed(error.reason, error.operator_detail)
            return
        if self._failure:
            log.info("vault.reached_again")
        self._failure, self.away = "", None
        self._reached_at = self._since = self._clock.monotonic()
        self._metrics.vault_asked(None)
        self._compare(frozenset(name.removesuffix("/") for name in names))
        self.back()

    def _compare(self, namespaces: frozenset[str]) -> None:
        before, self._namespaces = self._namespaces, namespaces
        if lost := before - namespaces:
            self.lost(lost)

    def _failed(self, reason: Reason, detail: str) -> None:
        self._metrics.vault_asked(reason)
        if reason != self._failure:
            log.warning("vault.not_reached", reason=reason.value, detail=detail)
        self._failure = reason


class NoVault:
    """Stands where nothing is kept in Vault: any replica leads as well as another."""

    fit = False
    unfit = False
