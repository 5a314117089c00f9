"""Candidates for a Lease in virtual time: each a process of its own that can freeze, on a network that fails."""

import asyncio
import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Self, TypeVar, TypeVarTuple

from broker.kube.answer import unavailable
from broker.model.lease import LeaseRecord, Term, Timing
from broker.services.leadership import Leadership

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
TIMING = Timing(15)
TICK = 0.25
_ROUNDS = 50
"""How often a loop may turn without that time passes."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FakeLease:
    """A Lease in memory, as the API server keeps it: the contract suite holds it against the real one."""

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self._version = 0

    def put(self, term: Term, over: LeaseRecord | None) -> LeaseRecord | None:
        """Write if the record is still that one."""
        if (self.record and self.record.version) != (over and over.version):
            return None
        self._version += 1
        self.record = LeaseRecord(term, "uid", str(self._version))
        return self.record

    async def read(self) -> LeaseRecord | None:
        """See :meth:`broker.ports.LeaseStore.read`."""
        return self.record

    async def write(self, term: Term, over: LeaseRecord | None) -> LeaseRecord | None:
        """See :meth:`broker.ports.LeaseStore.write`."""
        return self.put(term, over)


@dataclass(frozen=True, slots=True)
class Trip:
    """What becomes of one call: seconds until it arrives, and until its answer does, or None where it is lost."""

    there: float | None = 0.0
    back: float | None = 0.0
    refused: bool = False


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop by a clock that it is given."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._busy = False
        self._timers: list[float] = []
        super().__init__()

    def time(self) -> float:
        """Return that clock's time."""
        return self.clock()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Note that there is something to do."""
        self._busy = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Note when there will be."""
        heapq.heappush(self._timers, when)
        return super().call_at(when, callback, *args, context=context)

    def turn(self) -> None:
        """Run what is due, and what follows from it."""
        for _ in range(_ROUNDS):
            while self._timers and self._timers[0] <= self.time():
                heapq.heappop(self._timers)
                self._busy = True
            if not self._busy:
                return
            self._busy = False
            super().call_soon(self.stop)
            self.run_forever()
        raise AssertionError("it does not come to rest")


def _answer(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # nobody may wait for it any more
        future.set_result(result)


@dataclass
class Candidate:
    """A process: its own loop, clock and calls.

    ``rate`` is how fast its clock runs; ``trips`` are its next calls; after the next one is sent it stands still for
    ``stall`` seconds, and the answer and the end of its patience wait for it together. ``fit`` and ``unfit`` are what
    it knows about its own work (:class:`broker.services.leadership.Fitness`).
    """

    world: "World"
    name: str
    rate: float = 1.0
    offset: float = 0.0
    frozen_until: float = 0.0
    stall: float = 0.0
    trips: list[Trip] = field(default_factory=list)
    fit: bool = False
    unfit: bool = False
    told: list[bool] = field(default_factory=list)
    counted: list[bool] = field(default_factory=list)
    calls: int = 0

    def __post_init__(self) -> None:
        self.loop = VirtualLoop(self.monotonic)
        self.leadership = Leadership(
            store=self, clock=self, metrics=self, identity=self.name, timing=TIMING, fitness=self
        )
        self.leadership.on_change = self.told.append
        self.task = self.loop.create_task(self.leadership.run())

    def now(self) -> datetime:
        """Return a date that has nothing to do with anybody else's."""
        return START + timedelta(days=self.offset, seconds=self.world.time)

    def monotonic(self) -> float:
        """Return this machine's own time."""
        return self.offset + self.rate * self.world.time

    def leader_changed(self, *, leading: bool) -> None:
        """Note what is counted."""
        self.counted.append(leading)

    @property
    def leading(self) -> bool:
        """Tell what it would say if it were asked now."""
        return self.leadership.leading

    async def read(self) -> LeaseRecord | None:
        """Read over the network."""
        return await self._call(lambda: self.world.lease.record)

    async def write(self, term: Term, over: LeaseRecord | None) -> LeaseRecord | None:
        """Write over the network."""
        return await self._call(lambda: self.world.lease.put(term, over))

    async def _call(self, effect: Callable[[], T]) -> T:
        self.calls += 1
        self.world.freeze(self, self.stall)
        self.stall = 0.0
        trip = self.trips.pop(0) if self.trips else Trip()
        if trip.refused:
            raise unavailable("refused")
        future: asyncio.Future[T] = self.loop.create_future()

        def arrive() -> None:
            result = effect()
            if trip.back is not None:
                self.world.after(trip.back, partial(_answer, future, result))

        if trip.there is not None:
            self.world.after(trip.there, arrive)
        return await future


class World:
    """True time, the Lease, and what is on its way to it; a frozen or ended process' calls arrive all the same."""

    def __init__(self) -> None:
        self.time = 0.0
        self.lease = FakeLease()
        self.candidates: list[Candidate] = []
        self._on_the_way: list[tuple[float, Callable[[], object]]] = []

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Make a world, and end its processes on leaving."""
        world = cls()
        try:
            yield world
        finally:
            for candidate in world.candidates:
                world.kill(candidate)

    def add(self, name: str, *, rate: float = 1.0, offset: float = 0.0) -> Candidate:
        """Start a process."""
        candidate = Candidate(self, name, rate, offset)
        self.candidates.append(candidate)
        return candidate

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Let something happen later."""
        self._on_the_way.append((self.time + seconds, what))

    def freeze(self, candidate: Candidate, seconds: float) -> None:
        """Let a process not run for so long: SIGSTOP, a paused machine, a garbage collection."""
        candidate.frozen_until = max(candidate.frozen_until, self.time + seconds)

    def stop(self, candidate: Candidate) -> None:
        """Ask a process to end, as SIGTERM does."""
        candidate.task.cancel()

    def kill(self, candidate: Candidate) -> None:
        """End a process as kill -9 does: nobody ever sees what it does from here on."""
        self.candidates = [one for one in self.candidates if one is not candidate]
        told, counted = list(candidate.told), list(candidate.counted)
        candidate.world = World()
        candidate.task.cancel()
        candidate.loop.turn()
        candidate.world.time += 60
        candidate.loop.turn()
        assert candidate.task.cancelled(), f"{candidate.name} died by itself"
        candidate.loop.close()
        candidate.told, candidate.counted = told, counted

    @property
    def leaders(self) -> list[Candidate]:
        """Who leads, by their own word."""
        return [candidate for candidate in self.candidates if candidate.leading]

    def pass_(self, seconds: float) -> None:
        """Let time pass, and see that there never is more than one leader."""
        for _ in range(round(seconds / TICK)):
            self._settle()
            self.time += TICK
            self._alone()
        self._settle()

    def _settle(self) -> None:
        for _ in range(3):  # a call there, one back, and what follows
            due = [what for when, what in self._on_the_way if when <= self.time]
            self._on_the_way = [entry for entry in self._on_the_way if entry[0] > self.time]
            for what in due:
                what()
                self._alone()
            awake = [candidate for candidate in self.candidates if candidate.frozen_until <= self.time]
            for candidate in random.sample(awake, len(awake)):
                candidate.loop.turn()
                self._alone()

    def _alone(self) -> None:
        leaders = self.leaders
        assert len(leaders) <= 1, f"at {self.time:g} s: {[one.name for one in leaders]}"
