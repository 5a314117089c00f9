"""One token for many requests that come at once, for grants with ``reuse``: many instances that start together.

The first request for a token mints it; those that come meanwhile wait for it, and those that come within ``reuse``
get it, too. Each is decided anew at the moment in which it gets the token, by what is registered then: nothing that
was found out before counts. Tokens are kept in this process's memory alone.
"""

import asyncio
import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol, Self

from broker.errors import BrokerError, Fault
from broker.model.client import Client, ClientId
from broker.model.decision import Allowed, Ask
from broker.model.prepared import Prepared
from broker.model.proof import ProvedBy
from broker.ports import Clock
from broker.services.grant_book import not_ready
from broker.services.mint import Issued
from broker.services.storms.decide_anew import Decider

MAX_TOKENS = 4096
"""How many tokens are kept, each about 3 kB; the oldest goes first, which costs its client one TokenRequest more."""

MAX_TOKENS_OF_A_CLIENT = 256
"""How many of them may be of one client, so that none pushes out those of all others."""

MAX_WAITS = 5
"""How often a request waits for a token that it does not get, before its caller has to come again."""


@dataclass(frozen=True, slots=True)
class ShareKey:
    """What must be the same for two requests to get the same token.

    ``rotate_requested`` is when somebody asked for new tokens last (``client revoke-all``).
    """

    client: ClientId
    client_uid: str
    generation: int
    rotate_requested: datetime | None
    proved_by: ProvedBy
    account_uid: str
    anchor_uid: str
    grant: str
    audience: str
    ttl_seconds: int

    def is_of(self, client: Client) -> bool:
        """Tell whether this is about a client as it stands."""
        return (self.client_uid, self.generation, self.rotate_requested) == (
            client.uid,
            client.generation,
            client.rotate_requested,
        )

    @classmethod
    def of(cls, client: Client, allowed: Allowed, prepared: Prepared, by: ProvedBy) -> Self:
        """Return the key of what was decided."""
        return cls(
            client=client.id,
            client_uid=client.uid,
            generation=client.generation,
            rotate_requested=client.rotate_requested,
            proved_by=by,
            account_uid=prepared.account_uid,
            anchor_uid=prepared.anchor.uid,
            grant=allowed.grant.name,
            audience=allowed.audience,
            ttl_seconds=allowed.ttl_seconds,
        )


@dataclass(frozen=True, slots=True)
class _Decided:
    """What a request may have at this moment."""

    client: Client
    allowed: Allowed
    prepared: Prepared
    key: ShareKey

    def is_by(self, before: Self) -> bool:
        """Tell whether a token that was minted by what was decided before may be handed out."""
        return self.key == before.key and self.prepared is before.prepared


@dataclass(slots=True)
class _Kept:
    """A token, and when it was asked for and came, by the monotonic clock. ``timer`` takes it out of memory.

    ``prepared`` is the very entry of the book by which it was minted: one that was taken out and put in again is
    another one, also where it is equal.
    """

    issued: Issued
    prepared: Prepared
    asked_at: float
    came_at: float
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Flight:
    """A mint that is under way. It ends with a token, or a fault, or with neither: then whoever asked is gone."""

    key: ShareKey
    over: asyncio.Event = field(default_factory=asyncio.Event)
    kept: _Kept | None = None
    fault: Fault | None = None


class SharedMinter(Protocol):
    """What is needed of :class:`broker.services.mint.GrantMinter`, or of what stands in front of it."""

    def prepared(self, client: Client, allowed: Allowed) -> Prepared:
        """Return by what tokens of a grant are minted. Raises BrokerError."""

    async def mint(self, client: Client, allowed: Allowed) -> Issued:
        """Return a fresh token. Raises BrokerError."""


class SharedTokens:
    """Mints for grants with ``reuse``, and hands the same token out again."""

    def __init__(self, *, minter: SharedMinter, decider: Decider, clock: Clock) -> None:
        self._minter = minter
        self._decider = decider
        self._clock = clock
        self._flights: dict[ShareKey, _Flight] = {}
        self._kept: dict[ShareKey, _Kept] = {}
        self._of: dict[ClientId, dict[ShareKey, None]] = {}

    def __len__(self) -> int:
        """Return how many tokens are kept."""
        return len(self._kept)

    async def mint(self, client: Client, ask: Ask, by: ProvedBy) -> Issued:
        """Return a token, decided on at the moment of the return.

        A mint that fails fails all who wait for it, so that a storm does not meet an API server in trouble once for
        each; the next request tries again. Where the one whose request it is hangs up, another goes on in its place.
        Raises BrokerError like :meth:`Decider.decide` and :meth:`GrantMinter.mint`.
        """
        flight: _Flight | None = None
        for waits in range(MAX_WAITS + 1):
            now = self._decided(client, ask, by)
            kept = self._landed(flight, now) or self._good(now)
            if kept is not None:
                return self._again(kept)
            if waits == MAX_WAITS:
                break
            flight = self._flights.get(now.key)
            if flight is not None:
                await flight.over.wait()
                continue
            kept = await self._fly(now)
            if self._decided(client, ask, by).is_by(now):
                self._keep(now, kept)
                return kept.issued
        raise not_ready()

    def changed(self, client_id: ClientId) -> None:
        """Forget what was minted for a client that went, or changed since."""
        if client_id in self._of:
            client = self._decider.registered(client_id)
            for key in [key for key in self._of[client_id] if client is None or not key.is_of(client)]:
                self._drop(key)

    def _decided(self, client: Client, ask: Ask, by: ProvedBy) -> _Decided:
        now, allowed = self._decider.decide(client, ask, by)
        if not allowed.grant.reuse_seconds:
            raise not_ready()  # since it was decided last: its caller has to come again for a token of its own
        prepared = self._minter.prepared(now, allowed)
        return _Decided(now, allowed, prepared, ShareKey.of(now, allowed, prepared, by))

    async def _fly(self, now: _Decided) -> _Kept:
        flight = self._flights[now.key] = _Flight(now.key)
        asked_at = self._clock.monotonic()
        try:
            issued = await self._minter.mint(now.client, now.allowed)
        except BrokerError as error:
            flight.fault = Fault.of(error)
            raise
        else:
            flight.kept = _Kept(issued, now.prepared, asked_at, self._clock.monotonic())
            return flight.kept
        finally:  # also where the caller is gone
            del self._flights[now.key]
            flight.over.set()

    def _landed(self, flight: _Flight | None, now: _Decided) -> _Kept | None:
        """Return the token that was waited for, however long that took. Raises BrokerError where there is none."""
        if flight is None or flight.key != now.key:
            return None
        if flight.fault is not None:
            raise flight.fault.error()
        return flight.kept if flight.kept is not None and flight.kept.prepared is now.prepared else None

    def _good(self, now: _Decided) -> _Kept | None:
        """Return a token that may be handed out again, or None.

        It has at least half of its life left by the date, too: the monotonic clock may stand still while the machine
        sleeps.
        """
        kept = self._kept.get(now.key)
        if kept is None:
            return None
        token = kept.issued.token
        left = (token.expires_at - self._clock.now()).total_seconds()
        in_time = self._clock.monotonic() < kept.came_at + now.allowed.grant.reuse_seconds
        if in_time and left * 2 >= token.granted_seconds and kept.prepared is now.prepared:
            return kept
        self._drop(now.key)
        return None

    def _again(self, kept: _Kept) -> Issued:
        age = math.ceil(self._clock.monotonic() - kept.asked_at)
        return replace(kept.issued, age_seconds=max(1, age))

    def _keep(self, now: _Decided, kept: _Kept) -> None:
        of = self._of.setdefault(now.client.id, {})
        if len(of) >= MAX_TOKENS_OF_A_CLIENT:
            self._drop(next(iter(of)))
        elif len(self._kept) >= MAX_TOKENS:
            self._drop(next(iter(self._kept)))
        kept.timer = asyncio.get_running_loop().call_later(now.allowed.grant.reuse_seconds, self._drop, now.key)
        self._kept[now.key] = kept
        self._of.setdefault(now.client.id, {})[now.key] = None

    def _drop(self, key: ShareKey) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        if kept.timer is not None:
            kept.timer.cancel()
        of = self._of[key.client]
        del of[key]
        if not of:
            del self._of[key.client]
