"""The way from a replica to its neighbours: what becomes of each call is decided by the faults that were armed."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from broker.errors import BrokerError, Reason
from broker.vault.answer import unavailable as vault_unavailable
from tests.model.calls import PORTS

T = TypeVar("T")

DEADLINE = 10.0
"""After how many seconds an adapter gives a call up (``kubernetes.timeout_seconds``, ``vault.timeout_seconds``)."""

LATE = 14.0
"""After how many seconds a call that is held up on its way is carried out, long after it was given up."""


SLOW_SECONDS = 3.0


class How(StrEnum):
    """What can become of one call."""

    REFUSED = "refused"
    LOST = "carried out, answer lost"
    SLOW = "slow"
    SLOW_BACK = "the answer is slow"
    TIMEOUT = "never arrives"
    LATE = "arrives when it was given up"
    CRASH_BEFORE = "the broker dies before"
    CRASH_AFTER = "the broker dies after"
    CANCEL_BEFORE = "the caller goes before"
    CANCEL_AFTER = "the caller goes after"
    OUTAGE_BEFORE = "the neighbour goes out of reach before"
    OUTAGE_AFTER = "the neighbour goes out of reach after"


PASSING = tuple(how for how in How if not how.name.startswith("OUTAGE"))
"""Those that are over with the call."""


class Mortal(Protocol):
    """Who calls: a process that may die."""

    name: str
    dead: bool
    callers: set["asyncio.Task[object]"]

    def die(self) -> None:
        """End as kill -9 does."""


@dataclass(slots=True)
class Faults:
    """What was armed: by port, how many calls go by before the fault, and what it is. ``away``: who is out of reach."""

    armed: defaultdict[str, list[list[object]]] = field(default_factory=lambda: defaultdict(list))
    away: set[str] = field(default_factory=set)
    hits: Counter[str] = field(default_factory=Counter)
    hit_at: float = 0.0

    def arm(self, port: str, skip: int, how: How) -> None:
        """Let a coming call of a port meet a fault."""
        assert port in PORTS, port
        self.armed[port].append([skip, how])

    def clear(self) -> None:
        """Let everything work from now on."""
        self.armed.clear()
        self.away.clear()

    def next(self, port: str) -> How | None:
        """Return what the call that is made now meets."""
        assert port in PORTS, port
        waiting = self.armed.get(port)
        if not waiting:
            return None
        for one in waiting:
            if one[0] == 0:
                waiting.remove(one)
                self.hits[port] += 1
                self.hit_at = asyncio.get_running_loop().time()
                return How(str(one[1]))
        for one in waiting:
            one[0] = int(str(one[0])) - 1
        return None


class Wire:
    """A replica's calls to ``kube`` and ``vault``; either may be away from one replica or all, the Lease as well."""

    def __init__(self, replica: Mortal, faults: Faults) -> None:
        self._replica = replica
        self._faults = faults

    def reaches(self, who: str) -> bool:
        """Tell whether a neighbour is in reach."""
        return self._faults.away.isdisjoint({who, f"{who} from {self._replica.name[0]}"})

    async def call(self, port: str, effect: Callable[[bool], T], within: float = DEADLINE) -> T:
        """Let ``effect`` happen at the neighbour, and return its result; it is told whether it comes late.

        Raises BrokerError: what the effect raises, and where the call does not get through.
        """
        who = "vault" if port.startswith("vault") else "kube"
        if self._replica.dead or not (self.reaches(who) and self.reaches(port.partition(".")[0])):
            raise _lost(who)
        how = self._faults.next(port)
        await self._on_the_way(how, who, effect, within)
        result = effect(False)  # noqa: FBT003 - not late
        await self._on_the_way_back(how, who)
        return result

    async def _on_the_way(self, how: How | None, who: str, effect: Callable[[bool], T], within: float) -> None:
        match how:
            case How.REFUSED:
                raise _lost(who)
            case How.SLOW:
                await asyncio.sleep(min(SLOW_SECONDS, within))
            case How.TIMEOUT | How.LATE:
                if how is How.LATE:
                    asyncio.get_running_loop().call_later(LATE, _carry_out, effect)
                await asyncio.sleep(within)
                raise _late(who)
            case How.CRASH_BEFORE:
                self._replica.die()
            case How.CANCEL_BEFORE:
                self._go_away()
            case How.OUTAGE_BEFORE:
                self._faults.away.add(who)
                raise _lost(who)
        await asyncio.sleep(0)
        if self._replica.dead:  # a cancelled process' last words
            raise _lost(who)

    async def _on_the_way_back(self, how: How | None, who: str) -> None:
        if how is How.CRASH_AFTER:
            self._replica.die()
        if how is How.CANCEL_AFTER:
            self._go_away()
        if how is How.OUTAGE_AFTER:
            self._faults.away.add(who)
        await asyncio.sleep(SLOW_SECONDS if how is How.SLOW_BACK else 0)
        if how in {How.LOST, How.OUTAGE_AFTER}:
            raise _lost(who)

    def _go_away(self) -> None:
        """Cancel the caller whose request this is; what the broker does by itself is nobody's."""
        task = asyncio.current_task()
        if task is not None and task in self._replica.callers:
            task.cancel()

    def now(self, port: str) -> How | None:
        """Return what becomes of a call that takes no time; one may die by it."""
        how = self._faults.next(port)
        if how in {How.CRASH_BEFORE, How.CRASH_AFTER}:
            self._replica.die()
        return how


def _carry_out(effect: Callable[[bool], object]) -> None:
    try:
        effect(True)  # noqa: FBT003 - late
    except BrokerError:  # nobody hears of it
        return


def _lost(who: str) -> BrokerError:
    return vault_unavailable("no way") if who == "vault" else BrokerError(Reason.KUBERNETES_UNAVAILABLE, "no way")


def _late(who: str) -> BrokerError:
    return vault_unavailable("no answer") if who == "vault" else BrokerError(Reason.KUBERNETES_TIMEOUT, "no answer")
