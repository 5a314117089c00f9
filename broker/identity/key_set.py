"""The keys of one issuer, kept in memory: fetched once by whoever needs them first, and never without bounds."""

import asyncio
from typing import Protocol

import structlog

from broker.errors import BrokerError, ProofError, ProofFailure, Reason
from broker.identity.jose import PublicKey, Unverified, read_key_set
from broker.ports import Clock

log = structlog.get_logger(__name__)

FRESH_SECONDS = 900.0
"""Older keys still count, and are fetched anew beside the request."""

USABLE_SECONDS = 24 * 3600.0
"""The oldest keys that count while an issuer cannot be reached; a key that it withdrew lives on as long."""

UNKNOWN_KEY_SECONDS = 60.0
"""A key that is not known makes us ask the issuer again, at most this often."""

RETRY_SECONDS = 5.0
"""How long after a failure nobody asks again."""


class KeySource(Protocol):
    """Where an issuer's keys come from."""

    async def __call__(self) -> bytes:
        """Return a JWK set. Raises OSError or ValueError whose text says why there is none."""


class KeySetMetrics(Protocol):
    """What is told about fetches of keys."""

    def issuer_known(self, issuer: str) -> None:
        """Begin to count, at zero."""

    def keys_fetched(self, issuer: str, *, success: bool) -> None:
        """Count a fetch."""


class KeySet:
    """One issuer's keys. An answer without keys is a failure like any other, and the old ones stay."""

    def __init__(self, issuer: str, source: KeySource, clock: Clock, metrics: KeySetMetrics) -> None:
        self._issuer = issuer
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        metrics.issuer_known(issuer)

    async def find(self, token: Unverified) -> PublicKey:
        """Return the key that a token names.

        Raises ProofError(unknown_key), or BrokerError(issuer_unavailable) where the issuer cannot be asked.
        """
        if self._age(self._fetched) >= USABLE_SECONDS:
            await self._fetch_again(after=RETRY_SECONDS)
        elif self._age(self._fetched) >= FRESH_SECONDS:
            self._start(after=RETRY_SECONDS)
        key = self._choose(token)
        if key is None:
            await self._fetch_again(after=UNKNOWN_KEY_SECONDS)
            key = self._choose(token)
        if key is None:
            raise ProofError(ProofFailure.UNKNOWN_KEY)
        return key

    async def close(self) -> None:
        """End a fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _choose(self, token: Unverified) -> PublicKey | None:
        fitting = [key for key in self._keys if token.algorithm in key.algorithms]
        if token.key_id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.key_id == token.key_id), None)

    async def _fetch_again(self, *, after: float) -> None:
        """Wait for a fetch, unless the last one is younger; raise where it is the last one that failed."""
        self._start(after=after)
        if self._fetching is not None:
            # One caller that goes away must not end the fetch that others wait for.
            await asyncio.shield(self._fetching)
        if self._fetched is None or self._fetched != self._tried:
            raise BrokerError(
                Reason.ISSUER_UNAVAILABLE,
                "The issuer of the token cannot be asked for its keys at the moment.",
                operator_detail=f"The keys of {self._issuer} cannot be fetched; see the log's keys.not_fetched.",
                retry_after=int(RETRY_SECONDS),
            )

    def _start(self, *, after: float) -> None:
        if self._fetching is None and self._age(self._tried) >= after:
            self._tried = self._clock.monotonic()
            self._fetching = asyncio.create_task(self._fetch(self._tried), name=f"keys of {self._issuer}")

    async def _fetch(self, started: float) -> None:
        try:
            self._keys = read_key_set(await self._source())
            self._fetched = started
            log.info("keys.fetched", issuer=self._issuer, keys=len(self._keys))
        except (OSError, ValueError, RecursionError) as error:
            log.warning("keys.not_fetched", issuer=self._issuer, detail=str(error) or type(error).__name__)
        finally:
            self._fetching = None
            self._metrics.keys_fetched(self._issuer, success=self._fetched == started)

    def _age(self, since: float | None) -> float:
        return float("inf") if since is None else self._clock.monotonic() - since
