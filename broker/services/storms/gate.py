"""The way in to the API server for callers: so many calls at a time, the rest in turn, and no more than can be served.

A caller who finds a slot free takes it at once. The others stand in queues, one for each flow (a client), and the
flows are served in turn, one call of each: a storm of one client makes a long queue of its own, and nobody else's
longer. Named after what API Priority and Fairness of Kubernetes calls its parts; it is round robin, since calls cost
about the same (https://kubernetes.io/docs/concepts/cluster-administration/flow-control/).
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.ports import Clock

LONGEST_RETRY_SECONDS = 10
_WEIGHT = 1 / 16
"""Of the newest call in the average of how long calls take."""

caller: ContextVar[object] = ContextVar("caller", default=None)
"""Who asks, in the task of a request: an object that stands for him, and is what :meth:`Gate.hung_up` is told.

None where nobody can hang up.
"""

_FIRST_SECONDS = 0.1
"""What the first call counts for at most: it may have waited for a connection."""

_Queue = OrderedDict["_Waiter", None]


class Shed(StrEnum):
    """Why a request was refused early."""

    CLIENT_QUEUE_FULL = "client_queue_full"
    QUEUE_FULL = "queue_full"
    TOO_LATE = "too_late"
    """Its turn would have come after the longest wait."""
    WAITED = "waited"
    """Its turn did not come within the longest wait."""
    CONNECTIONS = "connections"
    """There were too many connections to let its caller in."""


class GateMetrics(Protocol):
    """What is told about those who wait."""

    def shed(self, why: Shed) -> None:
        """Count a request that was refused early."""

    def waited(self, seconds: float) -> None:
        """Observe how long a request waited for its turn."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many calls are made at a time, how many requests wait, altogether and of one flow, and how long at most."""

    concurrency: int
    waiting: int
    waiting_each: int
    wait_seconds: float


class Gate:
    """Lets callers in: ``async with gate.turn(flow)`` around what they cost.

    A slot that is free is taken without a task, a future or a lock. An estimate of how long those who come now
    would wait is made of how long calls took lately. A request that would wait too long is refused at once, so that no
    queue builds up before an API server that hangs, and whoever comes first after that is served first.
    """

    def __init__(self, bounds: Bounds, clock: Clock, metrics: GateMetrics) -> None:
        self._bounds = bounds
        self._clock = clock
        self._metrics = metrics
        self._free = bounds.concurrency
        self._flows: OrderedDict[Hashable, _Queue] = OrderedDict()
        self._callers: dict[object, _Waiter] = {}
        self._until_quiet: list[asyncio.Future[None]] = []
        self._since: OrderedDict[_Waiter, float] = OrderedDict()
        """Since when each waits, by the loop's clock, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._average = 0.0
        self._failing = 0.0
        self._began_at = clock.monotonic()
        self.waiting = 0
        """How many requests wait."""

    @property
    def full(self) -> bool:
        """Tell whether who comes now has to wait."""
        return not self._free

    def turn(self, flow: Hashable) -> "Turn":
        """Return the turn of a request, to be entered. Entering it raises BrokerError(overloaded)."""
        return Turn(self, flow)

    def hung_up(self, who: object) -> None:
        """Take a caller's request out of its queue, because he went. One that has its turn goes on."""
        waiter = self._callers.get(who)
        if waiter is not None:
            self._remove(waiter)
            waiter.turn.cancel()

    async def quiet(self, seconds: float) -> None:
        """Wait until no request has a slot, for so many seconds at most: for what can wait longer than a caller."""
        if self._free == self._bounds.concurrency:
            return
        loop = asyncio.get_running_loop()
        quiet: asyncio.Future[None] = loop.create_future()
        self._until_quiet.append(quiet)
        timer = loop.call_later(seconds, _be_quiet, quiet)
        try:
            await quiet
        finally:
            timer.cancel()
            if quiet in self._until_quiet:
                self._until_quiet.remove(quiet)

    def lately(self, seconds: float) -> bool:
        """Tell whether a request has a slot, or got one in the last so many seconds."""
        return self._free < self._bounds.concurrency or self._clock.monotonic() < self._began_at + seconds

    async def enter(self, flow: Hashable) -> float:
        """Wait for a slot and return when the call began, for :meth:`leave`."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(flow)
        self._began_at = self._clock.monotonic()
        return self._began_at

    def leave(self, began: float, error: BaseException | None) -> None:
        """Give a slot back, to whose turn it is."""
        took = self._clock.monotonic() - began
        if error is None:
            self._learn(took)
            self._failing = 0.0
        elif isinstance(error, BrokerError):
            self._failing = took
        self._hand_on()

    def _learn(self, took: float) -> None:
        """Take a call into the average, for twice of that at most: one that hung says nothing about the next ones."""
        if self._average:
            self._average += (min(took, 2 * self._average) - self._average) * _WEIGHT
        else:
            self._average = min(took, _FIRST_SECONDS)

    async def _wait(self, flow: Hashable) -> None:
        came = self._clock.monotonic()
        self._admit(flow)
        waiter = _Waiter(flow, asyncio.get_running_loop().create_future())
        self._add(waiter)
        who = caller.get()
        if who is not None:
            self._callers[who] = waiter
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.has_its_turn():
                self._hand_on()
            raise
        finally:
            self._callers.pop(who, None)
            self._remove(waiter)
            del waiter  # it has the error that it was shed with, whose traceback has this frame
        self._metrics.waited(self._clock.monotonic() - came)

    def _admit(self, flow: Hashable) -> None:
        """Make room for one more that waits. Raises BrokerError(overloaded).

        Of few flows one request each may wait however long it seems: there may be news by then.
        """
        bounds, own = self._bounds, len(self._flows.get(flow, ()))
        if own >= bounds.waiting_each:
            raise self._refusal(Shed.CLIENT_QUEUE_FULL, own)
        if (own or len(self._flows) >= bounds.concurrency) and self._expected(own) > bounds.wait_seconds:
            raise self._refusal(Shed.TOO_LATE, own)
        if self.waiting >= bounds.waiting:
            longest = max(self._flows.values(), key=len)
            if len(longest) <= own + 1:
                raise self._refusal(Shed.QUEUE_FULL, own)
            self._shed(next(reversed(longest)), Shed.QUEUE_FULL)

    def _expected(self, own: int) -> float:
        """Return how many seconds a request would wait, at most, behind so many of its own flow.

        As many of each other flow come before it. All calls that are being made are as old, at least, as the one that
        began last: so much it has hung already, whatever the average was before.
        """
        ahead = min(self.waiting, (own + 1) * len(self._flows)) + 1
        rounds = math.ceil(ahead / self._bounds.concurrency)
        return rounds * max(self._average, self._failing) + self._clock.monotonic() - self._began_at

    def _add(self, waiter: "_Waiter") -> None:
        self._flows.setdefault(waiter.flow, OrderedDict())[waiter] = None
        self._since[waiter] = waiter.turn.get_loop().time()
        self.waiting += 1
        if self._timer is None:
            self._timer = waiter.turn.get_loop().call_later(self._bounds.wait_seconds, self._shed_old)

    def _remove(self, waiter: "_Waiter") -> None:
        queue = self._flows.get(waiter.flow)
        if queue is not None and waiter in queue:
            del queue[waiter]
            del self._since[waiter]
            self.waiting -= 1
            if not queue:
                del self._flows[waiter.flow]

    def _hand_on(self) -> None:
        """Give a slot to the first of the flow whose turn it is, or keep it free."""
        while self._flows:
            flow = next(iter(self._flows))
            waiter = next(iter(self._flows[flow]))
            self._flows.move_to_end(flow)
            self._remove(waiter)
            if not waiter.turn.done():  # else its task was cancelled, and did not run since
                waiter.turn.set_result(None)
                return
        self._free += 1
        if self._until_quiet and self._free == self._bounds.concurrency:
            waiting, self._until_quiet = self._until_quiet, []
            for quiet in waiting:
                _be_quiet(quiet)

    def _shed_old(self) -> None:
        """Refuse those who have waited for too long. One timer for all of them: most get their turn long before."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._since:
            waiter, since = next(iter(self._since.items()))
            left = since + self._bounds.wait_seconds - loop.time()
            if left > 0:
                self._timer = loop.call_later(left, self._shed_old)
                return
            self._shed(waiter, Shed.WAITED)

    def _shed(self, waiter: "_Waiter", why: Shed) -> None:
        self._remove(waiter)
        if not waiter.turn.done():
            waiter.turn.set_exception(self._refusal(why, len(self._flows.get(waiter.flow, ()))))

    def _refusal(self, why: Shed, own: int) -> BrokerError:
        """Return what a request is told: to come again when those who wait of its flow were served."""
        self._metrics.shed(why)
        seconds = min(LONGEST_RETRY_SECONDS, max(1, math.ceil(self._expected(own))))
        return BrokerError(
            Reason.OVERLOADED,
            "The broker has more requests than it can serve in time.",
            operator_detail=f"refused early: {why}; {self.waiting} requests wait",
            retry_after=seconds,
        )


def _be_quiet(quiet: asyncio.Future[None]) -> None:
    if not quiet.done():
        quiet.set_result(None)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A request that waits for its turn."""

    flow: Hashable
    turn: asyncio.Future[None]

    def has_its_turn(self) -> bool:
        """Tell whether it was given a slot: perhaps in the moment in which its task was cancelled."""
        return self.turn.done() and not self.turn.cancelled() and self.turn.exception() is None


class Turn:
    """One request's turn at a gate; see :meth:`Gate.turn`."""

    __slots__ = ("_began", "_flow", "_gate")

    def __init__(self, gate: Gate, flow: Hashable) -> None:
        self._gate = gate
        self._flow = flow
        self._began = 0.0

    async def __aenter__(self) -> bool:
        """Return whether it had to be waited for. Raises BrokerError(overloaded)."""
        waits = self._gate.full
        self._began = await self._gate.enter(self._flow)
        return waits

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._gate.leave(self._began, error)
