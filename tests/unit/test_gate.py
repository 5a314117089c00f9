"""The gate for callers: turns are fair, queues are bounded, and what would come too late is refused at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError, Reason
from broker.services.storms.gate import Bounds, Shed, caller
from tests.support.gates import GateNotes, a_gate
from tests.support.pages import DOCS
from tests.support.rotation import HandClock

SERVICE_SECONDS = 0.01
BOUNDS = Bounds(concurrency=4, waiting=5000, waiting_each=2000, wait_seconds=60)


class Crowd:
    """Callers at a gate, and an API server that takes as long for each call as it is told to.

    ``served`` has the flow of each call in the order in which they began. Time passes by hand.
    """

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.clock, self.notes = HandClock(), GateNotes()
        self.gate = a_gate(self.clock, bounds, self.notes)
        self.served: list[str] = []
        self.refused: list[tuple[str, BrokerError]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._calls: list[asyncio.Future[None]] = []

    async def come(self, flow: str, times: int = 1) -> asyncio.Task[None]:
        """Let requests of a flow come, and return the last one's task."""
        self.tasks += [asyncio.create_task(self._ask(flow)) for _ in range(times)]
        await settled()
        return self.tasks[-1]

    async def end(self, calls: int = 1, *, seconds: float = SERVICE_SECONDS, error: Reason | None = None) -> None:
        """Let the oldest calls end, one by one, so long after the one before."""
        for _ in range(calls):
            self.clock.pass_(seconds)
            call = self._calls.pop(0)
            if error is None:
                call.set_result(None)
            else:
                call.set_exception(BrokerError(error, ""))
            await settled()

    @property
    def calls(self) -> int:
        """How many are being made."""
        return len(self._calls)

    async def _ask(self, flow: str) -> None:
        try:
            async with self.gate.turn(flow):
                self.served.append(flow)
                self._calls.append(asyncio.get_running_loop().create_future())
                await self._calls[-1]
        except BrokerError as error:
            self.refused.append((flow, error))

    async def leave(self) -> None:
        """End everything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextmanager
def calls_as(who: object) -> Iterator[None]:
    """Let the requests that come be somebody's who can hang up."""
    token = caller.set(who)
    yield
    caller.reset(token)


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


Start = Callable[..., Crowd]


@pytest.fixture
async def crowded() -> AsyncIterator[Start]:
    """Return what makes a crowd, which is sent home afterwards."""
    made: list[Crowd] = []

    def start(**changes: Any) -> Crowd:
        made.append(Crowd(replace(BOUNDS, **changes)))
        return made[-1]

    yield start
    for crowd in made:
        await crowd.leave()


async def test_no_more_calls_than_allowed_are_made_at_a_time(crowded: Start) -> None:
    """The next begins when one has ended, whichever way."""
    crowd = crowded()
    await crowd.come("a", 10)
    first = crowd.calls, crowd.gate.waiting
    await crowd.end(2)
    await crowd.end(error=Reason.KUBERNETES_UNAVAILABLE)
    second = crowd.calls, crowd.gate.waiting
    await crowd.end(7)

    assert first == (4, 6)
    assert second == (4, 3)
    assert (crowd.calls, crowd.gate.waiting, len(crowd.served)) == (0, 0, 10)


async def test_who_finds_a_slot_free_waits_for_nothing() -> None:
    """The turn begins without giving the loop a chance: no task, no future, no lock."""
    gate = a_gate(HandClock())
    turn = gate.turn("a").__aenter__()

    with pytest.raises(StopIteration):
        turn.send(None)
    assert gate.waiting == 0


async def test_a_quiet_client_is_served_next_whoever_storms(crowded: Start) -> None:
    """A thousand requests of another client wait: it is called after one of them."""
    crowd = crowded()
    await crowd.come("storm", 1000)
    await crowd.come("quiet")
    before = len(crowd.served)
    await crowd.end(2)

    assert "quiet" in crowd.served[before : before + 2]


async def test_each_of_many_clients_is_served_once_a_round(crowded: Start) -> None:
    """However long the queues of the others are, and in whichever order they came."""
    crowd = crowded()
    for name, times in (("a", 300), ("b", 30), ("c", 3), ("d", 1)):
        await crowd.come(name, times)
    before = len(crowd.served)
    await crowd.end(8)

    assert Counter(crowd.served[before : before + 8]) == {"a": 3, "b": 2, "c": 2, "d": 1}


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 12)), min_size=1, max_size=12))
def test_nobody_is_passed_by_more_than_once_by_each_other(arrivals: list[tuple[str, int]]) -> None:
    """Between two calls of a client that has more waiting, no other client is called twice."""

    async def play() -> list[str]:
        crowd = Crowd()
        await crowd.come("first", BOUNDS.concurrency)
        for name, times in arrivals:
            await crowd.come(name, times)
        await crowd.end(crowd.calls + crowd.gate.waiting)
        return crowd.served[BOUNDS.concurrency :]

    served = asyncio.run(play())
    left = Counter(served)
    for at, name in enumerate(served):
        left[name] -= 1
        if left[name]:
            following = served[at + 1 : served.index(name, at + 1)]
            assert max(Counter(following).values(), default=0) <= 1


async def test_one_client_fills_no_more_than_its_own_queue(crowded: Start) -> None:
    """Beyond that it is refused at once, and others are not."""
    crowd = crowded(waiting_each=3)
    await crowd.come("storm", 4 + 3 + 2)
    await crowd.come("quiet")

    assert [(flow, error.reason) for flow, error in crowd.refused] == [("storm", Reason.OVERLOADED)] * 2
    assert crowd.notes.refused == [Shed.CLIENT_QUEUE_FULL] * 2
    assert crowd.gate.waiting == 4


async def test_who_has_the_longest_queue_makes_room(crowded: Start) -> None:
    """Its newest request is refused for one of a shorter queue; where all are alike, the newcomer is."""
    crowd = crowded(waiting=6)
    await crowd.come("storm", 4 + 4)
    await crowd.come("other", 2)
    newest = crowd.tasks[7]
    await crowd.come("quiet")
    made_room = newest.done(), crowd.gate.waiting
    for name in "abcd":
        await crowd.come(name)

    assert made_room == (True, 6)
    assert [flow for flow, _ in crowd.refused] == ["storm", "storm", "storm", "other", "d"]
    assert crowd.notes.refused == [Shed.QUEUE_FULL] * 5


async def test_bound_holds_where_many_come_in_the_same_moment(crowded: Start) -> None:
    """Those who make room are counted out before they know."""
    crowd = crowded(waiting=6)
    await crowd.come("storm", 4 + 6)
    crowd.tasks += [asyncio.create_task(crowd._ask(name)) for name in "abcde"]
    await settled()

    assert crowd.gate.waiting == 6
    assert Counter(flow for flow, _ in crowd.refused) == {"storm": 5}


async def test_who_would_come_too_late_is_refused_at_once(crowded: Start) -> None:
    """By how long calls take, 4 at a time: after 1 s of them there is no room for a fifth round."""
    crowd = crowded(wait_seconds=4)
    for _ in range(40):
        await crowd.come("a", 4)
        crowd.clock.pass_(0.99 - SERVICE_SECONDS)
        await crowd.end(4, seconds=SERVICE_SECONDS / 4)
    await crowd.come("a", 4 + 16)
    in_time = list(crowd.refused)
    await crowd.come("a")
    [(_, error)] = crowd.refused

    assert in_time == []
    assert (error.reason, error.retry_after) == (Reason.OVERLOADED, 5)
    assert crowd.notes.refused == [Shed.TOO_LATE]


async def test_an_api_server_that_hangs_is_noticed_by_how_long_it_has(crowded: Start) -> None:
    """Whatever calls took before: only the first of each client waits for it, and of few clients."""
    crowd = crowded(wait_seconds=5)
    await crowd.come("a", 4)
    await crowd.end(4)
    await crowd.come("a", 4 + 1)
    crowd.clock.pass_(5.1)
    await crowd.come("a")
    refused = [flow for flow, _ in crowd.refused]
    for name in "bcdef":
        await crowd.come(name)

    assert refused == ["a"]
    assert [flow for flow, _ in crowd.refused] == ["a", "e", "f"]


async def test_an_api_server_that_pauses_for_a_moment_costs_nobody_anything(crowded: Start) -> None:
    """However many wait: its pause is waited for once, not by each round anew."""
    crowd = crowded(wait_seconds=5)
    await crowd.come("a", 4)
    await crowd.end(4)
    await crowd.come("a", 4 + 400)
    crowd.clock.pass_(1)
    await crowd.come("a")

    assert crowd.refused == []


async def test_calls_that_fail_slowly_are_no_news_that_it_is_back(crowded: Start) -> None:
    """After a call has timed out the next ones are expected to, until one succeeds."""
    crowd = crowded(wait_seconds=5)
    await crowd.come("a", 4 + 1)
    crowd.clock.pass_(10)
    await crowd.end(error=Reason.KUBERNETES_TIMEOUT)
    await crowd.come("b", 2)
    hanging = [flow for flow, _ in crowd.refused]
    await crowd.end(3)
    await crowd.come("b", 4 + 3)

    assert hanging == ["a", "b"]  # the call that timed out, and one who would have waited for the next to
    assert [flow for flow, _ in crowd.refused] == hanging


async def test_the_first_after_a_pause_is_served_at_once(crowded: Start) -> None:
    """What hung ends, what waited is served, and the next one finds a slot free."""
    crowd = crowded(wait_seconds=5)
    await crowd.come("storm", 4 + 20)
    crowd.clock.pass_(30)
    await crowd.come("storm", 100)
    shed = len(crowd.refused)
    await crowd.end(24, seconds=0.001)
    await crowd.come("quiet")

    assert shed == 100
    assert crowd.served[-1] == "quiet"
    assert crowd.gate.waiting == 0


async def test_calls_that_hung_and_then_succeeded_are_not_what_the_next_ones_take(crowded: Start) -> None:
    """A queue that comes right after them is let in."""
    crowd = crowded(wait_seconds=5)
    await crowd.come("a", 4)
    await crowd.end(4)
    await crowd.come("a", 4)
    crowd.clock.pass_(9)
    await crowd.end(4)
    await crowd.come("a", 4 + 400)

    assert crowd.refused == []


async def test_an_api_server_that_gets_slow_is_learnt_of(crowded: Start) -> None:
    """Not by one call, but by some dozens: then no more are let in than it can serve."""
    crowd = crowded(wait_seconds=5)
    await crowd.come("a", 4)
    await crowd.end(4)
    await crowd.come("a", 400)
    await crowd.end(300, seconds=0.5)
    await crowd.come("b", 100)

    assert Counter(crowd.notes.refused) == {Shed.TOO_LATE: len(crowd.refused)}
    assert 80 < len(crowd.refused) < 100


async def test_a_gate_that_was_idle_for_long_is_no_gate_that_hangs(crowded: Start) -> None:
    """Nothing ended for an hour because there was nothing."""
    crowd = crowded()
    await crowd.come("a")
    await crowd.end()
    crowd.clock.pass_(3600)
    await crowd.come("a", 50)

    assert crowd.refused == []
    assert crowd.gate.waiting == 46


async def test_nobody_waits_longer_than_allowed(crowded: Start) -> None:
    """Who could not be told so when it came is when the time is over; the queue is empty then."""
    crowd = crowded(wait_seconds=0.05)
    await crowd.come("a", 4 + 2)
    await asyncio.sleep(0.1)

    assert [error.reason for _, error in crowd.refused] == [Reason.OVERLOADED] * 2
    assert crowd.notes.refused == [Shed.WAITED] * 2
    assert crowd.gate.waiting == 0


async def test_a_caller_that_hangs_up_leaves_the_queue(crowded: Start) -> None:
    """Its turn goes to the next; of a call that is being made nothing is taken away."""
    crowd = crowded()
    with calls_as("caller of a"):
        calling = await crowd.come("a", 4)
    with calls_as("caller of b"):
        waiting = await crowd.come("b")
    with calls_as("caller of c"):
        await crowd.come("c")
    for who in ("caller of a", "caller of b", "nobody", None):
        crowd.gate.hung_up(who)
    now = crowd.gate.waiting
    await crowd.end(4)

    assert now == 1
    assert waiting.cancelled()
    assert not calling.cancelled()
    assert crowd.served[4:] == ["c"]


@pytest.mark.parametrize("first", ["turn", "cancelled", "end"])
async def test_a_turn_of_somebody_who_went_in_the_same_moment_is_not_lost(crowded: Start, first: str) -> None:
    """Whether he was given it before or after he was gone, or the call ended just before, the next one has it."""
    crowd = crowded()
    await crowd.come("a", 4)
    gone = await crowd.come("b")
    await crowd.come("c")
    ended = crowd._calls.pop(0)
    if first == "turn":
        ended.set_result(None)
        await asyncio.sleep(0)
        gone.cancel()
    elif first == "cancelled":
        gone.cancel()
        ended.set_result(None)
    else:
        ended.set_result(None)
        gone.cancel()
    await settled()
    await crowd.end(4)
    await crowd.come("d", 4)

    assert "c" in crowd.served
    assert "b" not in crowd.served
    assert crowd.calls == 4


async def test_many_who_go_in_the_same_moment_take_no_slot_along(crowded: Start) -> None:
    """As at a stop, which cancels all of them: the next one finds a slot free."""
    crowd = crowded(waiting=5000, waiting_each=5000)
    await crowd.come("a", 4 + 3000)
    await crowd.leave()
    await crowd.come("b", 4)

    assert crowd.gate.waiting == 0
    assert crowd.served[-4:] == ["b"] * 4


async def test_what_was_refused_or_went_takes_no_memory(crowded: Start) -> None:
    """No queue of anybody is left."""
    crowd = crowded(waiting_each=2)
    await crowd.come("a", 4)
    for name in range(100):
        with calls_as(f"caller-{name}"):
            await crowd.come(f"client-{name}", 3)
    await crowd.leave()

    assert (crowd.gate.waiting, len(crowd.gate._flows), len(crowd.gate._callers)) == (0, 0, 0)


async def test_how_long_was_waited_is_told(crowded: Start) -> None:
    """Of those who had to wait, and of nobody else."""
    crowd = crowded()
    await crowd.come("a", 4 + 1)
    await crowd.end(seconds=0.25)

    assert crowd.notes.waits == [0.25]


def test_every_word_for_a_refusal_is_explained() -> None:
    """Operators find the metric's labels in the reference of the configuration."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")

    assert [why for why in Shed if f"- `{why}`: " not in text] == []


async def test_what_can_wait_does_not_where_no_caller_is_there() -> None:
    """It takes no turn of the loop."""
    crowd = Crowd()
    await crowd.come("a")
    await crowd.end()

    waiting = crowd.gate.quiet(60)

    with pytest.raises(StopIteration):
        waiting.send(None)


async def test_what_can_wait_goes_after_the_last_caller() -> None:
    """Those who were handed a slot among them; whoever comes then does not wait for it."""
    crowd = Crowd(replace(BOUNDS, concurrency=2))
    await crowd.come("a", 3)
    waiting = asyncio.create_task(crowd.gate.quiet(60))
    done = []
    for _ in range(3):
        await crowd.end()
        done.append(waiting.done())
    await crowd.come("b")

    assert done == [False, False, True]
    assert crowd.calls == 1


async def test_callers_who_never_stop_do_not_hold_it_up_for_long() -> None:
    """It goes on after the time that it gave them, and leaves nothing behind."""
    crowd = Crowd()
    await crowd.come("a")
    async with asyncio.timeout(5):
        await crowd.gate.quiet(0.01)

    assert not crowd.gate._until_quiet


async def test_whoever_gives_up_waiting_for_quiet_is_forgotten() -> None:
    """And the others are told all the same."""
    crowd = Crowd()
    await crowd.come("a")
    first, second = (asyncio.create_task(crowd.gate.quiet(60)) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    left = len(crowd.gate._until_quiet)
    await crowd.end()

    assert left == 1
    assert second.done()
    assert first.cancelled()


async def test_callers_are_known_for_a_while_after_they_went() -> None:
    """One that has a slot counts as long as he has it."""
    crowd = Crowd()
    crowd.clock.pass_(1)
    before = crowd.gate.lately(1)
    await crowd.come("a")
    crowd.clock.pass_(60)
    during = crowd.gate.lately(1)
    await crowd.end()
    long_since = crowd.gate.lately(1)
    await crowd.come("b")
    await crowd.end(seconds=0.5)
    just_now = crowd.gate.lately(1)

    assert [before, during, long_since, just_now] == [False, True, False, True]


async def test_one_timer_is_enough_for_all_who_wait(crowded: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """One each took a part of what a token costs; nearly all of them are never needed."""
    loop, set_up = asyncio.get_running_loop(), list[float]()
    call_later = loop.call_later

    def noted(seconds: float, *args: Any) -> asyncio.TimerHandle:
        if seconds == BOUNDS.wait_seconds:  # others use the loop, too
            set_up.append(seconds)
        return call_later(seconds, *args)

    monkeypatch.setattr(loop, "call_later", noted)
    crowd = crowded()
    await crowd.come("storm", 50)
    await crowd.end(20)

    assert set_up == [BOUNDS.wait_seconds]
