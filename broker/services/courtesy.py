"""Callers first: what the broker does by itself waits while callers have requests in flight.

A renewal has hours, a caller is waiting. Each wait is short, so that callers who never stop cannot hold up rotation.
And while callers come at all, one call is made at a time, to whomever: who comes now has hardly more than those before
him. That is so for what rotation asks of the API server and of Vault, and, with turns of their own, for looks at
accounts of grants that work: a look counts as a call, whatever it asks.
docs/performance.md has what that costs and gains.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

STAND_BACK_SECONDS = 0.03
"""How long one call stands back at most. A renewal has three: so 10 copies a second come, whoever calls how often."""

LATELY_SECONDS = 1.0
"""For so long after a caller another one is expected."""

FEW = 1
"""How many calls are made at a time while callers come, of all kinds together."""

HELD_SECONDS = 0.25
"""After so long a call holds up no others: whoever it waits for hangs, and others may not."""

PATIENCE_SECONDS = 240.0
"""What is late by more goes on as if no callers came, unless told otherwise: where each takes long, that is needed."""


class Callers(Protocol):
    """Knows of callers (:class:`broker.services.storms.gate.Gate`)."""

    async def quiet(self, seconds: float) -> None:
        """Wait until none has a request in flight, for so many seconds at most."""

    def lately(self, seconds: float) -> bool:
        """Tell whether one has, or one came in so many seconds."""


_AT_ONCE: ContextVar[bool] = ContextVar("at_once", default=False)


@contextmanager
def at_once() -> Iterator[None]:
    """Let no call in the block stand back: a caller waits for what it does himself, or it ends something."""
    token = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


@dataclass(slots=True, eq=False)
class Kind:
    """Calls of one kind: how many are made at a time, at most, and are being made."""

    most: int
    taken: int = 0


@dataclass(slots=True, eq=False)
class _Call:
    """A call that waits for its turn, or has it; ``counts`` while it holds up others."""

    kind: Kind
    turn: asyncio.Future[None]
    counts: bool = False


class Turns:
    """Lets calls be made. Who came first has the first turn that is free for his kind.

    ``late`` says for how many seconds the oldest of what they are made for has been due, and ``pressing`` whether
    something else waits for those who make them: then they go on as if no callers came.
    """

    def __init__(self, callers: Callers, patience: float = PATIENCE_SECONDS) -> None:
        self._callers = callers
        self._patience = patience
        self._counting = 0
        self._waiting: deque[_Call] = deque()
        self.late: Callable[[], float] = lambda: 0.0
        self.pressing: Callable[[], bool] = lambda: False

    @asynccontextmanager
    async def turn(self, kind: Kind) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        if _AT_ONCE.get():
            yield
            return
        loop = asyncio.get_running_loop()
        call = _Call(kind, loop.create_future())
        await self._wait(call)
        hanging = loop.call_later(HELD_SECONDS, self._let_others_go_on, call)
        try:
            await self._callers.quiet(STAND_BACK_SECONDS)
            yield
        finally:
            hanging.cancel()
            self._give_back(call)

    async def _wait(self, call: _Call) -> None:
        self._waiting.append(call)
        self._hand_on()
        try:
            await call.turn
        except asyncio.CancelledError:
            if call in self._waiting:
                self._waiting.remove(call)
            else:  # it was given a turn in this very moment
                self._give_back(call)
            raise

    def _give_back(self, call: _Call) -> None:
        call.kind.taken -= 1
        self._let_others_go_on(call)

    def _let_others_go_on(self, call: _Call) -> None:
        if call.counts:
            call.counts = False
            self._counting -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        """Give turns to all who may have one now."""
        few = self._callers.lately(LATELY_SECONDS) and self.late() < self._patience and not self.pressing()
        for call in tuple(self._waiting):
            if few and self._counting >= FEW:
                return
            if call.kind.taken < call.kind.most and not call.turn.cancelled():
                self._waiting.remove(call)
                call.kind.taken += 1
                call.counts = True
                self._counting += 1
                call.turn.set_result(None)
