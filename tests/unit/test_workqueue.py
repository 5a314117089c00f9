"""Keys to be visited, in the loop's own time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from broker.errors import BrokerError, Reason
from broker.services import workqueue
from broker.services.workqueue import FIRST_SECONDS, WorkQueue


async def turns() -> None:
    """Let all tasks come as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(work: Callable[[str], Awaitable[float | None]], workers: int = 2) -> AsyncIterator[WorkQueue[str]]:
    """Run a queue for the length of a block."""
    queue: WorkQueue[str] = WorkQueue("test", work, workers=workers)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_is_visited_once_however_often_it_is_added() -> None:
    """Adding a waiting key again changes nothing."""
    visited: list[str] = []
    done = asyncio.Event()

    async def work(key: str) -> None:
        visited.append(key)
        if key == "last":
            done.set()

    async with running(work, workers=1) as queue:
        for _ in range(5):
            queue.add("a")
        queue.add("last")
        async with asyncio.timeout(5):
            await done.wait()

    assert visited == ["a", "last"]
    assert len(queue) == 0


async def test_a_key_is_never_visited_by_two_workers_and_not_forgotten_meanwhile() -> None:
    """Added during its visit, a key is visited again afterwards."""
    visits, together, most = 0, 0, 0
    again, done = asyncio.Event(), asyncio.Event()

    async def work(_key: str) -> None:
        nonlocal visits, together, most
        visits, together = visits + 1, together + 1
        most = max(most, together)
        if visits == 1:
            again.set()
        await asyncio.sleep(0)
        together -= 1
        if visits == 2:
            done.set()

    async with running(work) as queue:
        queue.add("a")
        await again.wait()
        queue.add("a")
        async with asyncio.timeout(5):
            await done.wait()

    assert (visits, most) == (2, 1)


async def test_a_failure_is_tried_again_and_does_not_stop_others() -> None:
    """A BrokerError costs its key a wait, and nobody else anything."""
    attempts: list[str] = []
    done = asyncio.Event()

    async def work(key: str) -> None:
        attempts.append(key)
        if key == "bad" and attempts.count("bad") == 1:
            raise BrokerError(Reason.KUBERNETES_TIMEOUT, "slow")
        if attempts.count("bad") == 2:
            done.set()

    async with running(work, workers=1) as queue:
        queue.add("bad")
        queue.add("good")
        async with asyncio.timeout(5):
            await done.wait()

    assert attempts == ["bad", "good", "bad"]


async def test_the_delay_that_work_returns_is_kept_and_can_be_brought_forward() -> None:
    """A key that is due in an hour is visited at once when it is added."""
    visits = asyncio.Queue[str]()

    async def work(key: str) -> float:
        visits.put_nowait(key)
        return 3600.0

    async with running(work) as queue:
        queue.add("a")
        async with asyncio.timeout(5):
            await visits.get()
            await asyncio.sleep(0)
            assert len(queue) == 1
            queue.add("a")
            await visits.get()

    assert visits.empty()


async def test_news_goes_before_all_that_was_planned() -> None:
    """With ten thousand keys to be looked at again, a new one is not the last."""
    visited: list[str] = []
    done = asyncio.Event()

    async def work(key: str) -> None:
        visited.append(key)
        if len(visited) == 4:
            done.set()

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1)
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.news("new")
    queue.news("b")
    late = queue.overdue()
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()

    assert visited == ["new", "b", "a", "c"]
    assert late < 5


async def test_news_presses_until_a_worker_takes_it() -> None:
    """What was planned does not, however late it is, nor what is in a hurry: that has workers of its own."""
    taken, hold = asyncio.Event(), asyncio.Event()

    async def work(_key: str) -> None:
        taken.set()
        await hold.wait()

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1, urgent_work=work, urgent_workers=1)
    seen = [queue.pressing()]
    queue.add("a", -1000)
    queue.hurry("b")
    seen.append(queue.pressing())
    queue.news("c")
    seen.append(queue.pressing())
    queue.forget("a")
    queue.forget("b")
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(5):
        await taken.wait()
    seen.append(queue.pressing())
    queue.news("a")
    seen.append(queue.pressing())
    queue.forget("a")
    seen.append(queue.pressing())
    task.cancel()

    assert seen == [False, False, True, False, True, False]


async def test_a_forgotten_key_is_not_visited() -> None:
    """What is forgotten before it was due is gone."""
    visited: list[str] = []
    done = asyncio.Event()

    async def work(key: str) -> None:
        visited.append(key)
        done.set()

    async with running(work) as queue:
        queue.add("gone", 0.01)
        queue.forget("gone")
        queue.add("kept", 0.05)
        async with asyncio.timeout(5):
            await done.wait()

    assert visited == ["kept"]


async def test_keys_in_a_hurry_have_workers_of_their_own() -> None:
    """All others may be held by slow visits; such a key is visited by the handler for it, and then like any other."""
    visited: list[tuple[str, str]] = []
    done, slow_goes_on = asyncio.Event(), asyncio.Event()

    async def work(key: str) -> None:
        visited.append(("visit", key))
        if key == "slow":
            await slow_goes_on.wait()
        else:
            done.set()

    async def end(key: str) -> float:
        visited.append(("end", key))
        slow_goes_on.set()
        return 0.0

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1, urgent_work=end, urgent_workers=1)
    task = asyncio.create_task(queue.run())
    queue.add("slow")
    await asyncio.sleep(0.01)
    queue.hurry("urgent")
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert visited == [("visit", "slow"), ("end", "urgent"), ("visit", "urgent")]


async def test_a_visit_is_given_up_for_a_hurry_of_the_same_key() -> None:
    """Once; it is no failure, and what is in a hurry is never given up itself."""
    events: list[str] = []
    going, done = asyncio.Event(), asyncio.Event()

    async def work(_key: str) -> None:
        try:
            going.set()
            await asyncio.Event().wait()
        finally:
            events.append("given up")

    async def end(_key: str) -> None:
        queue.hurry("a")
        events.append("end")
        await asyncio.sleep(0)
        if events.count("end") == 2:
            done.set()
            queue.forget("a")

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1, urgent_work=end, urgent_workers=2)
    task = asyncio.create_task(queue.run())
    queue.add("a")
    await going.wait()
    queue.hurry("a")
    queue.hurry("a")
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert events == ["given up", "end", "end"]


async def test_a_failure_in_a_hurry_stays_in_one() -> None:
    """It is tried again by those who have time for it."""
    tried = 0
    done = asyncio.Event()

    async def never(key: str) -> None:
        raise AssertionError(key)

    async def end(_key: str) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise BrokerError(Reason.KUBERNETES_TIMEOUT, "slow")
        done.set()

    queue: WorkQueue[str] = WorkQueue("test", never, workers=1, urgent_work=end, urgent_workers=1)
    task = asyncio.create_task(queue.run())
    queue.hurry("a")
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert tried == 2


async def test_what_counts_no_more_does_not_fill_the_memory() -> None:
    """A key that is brought forward leaves its old entry behind, which is far from due."""

    async def never(key: str) -> None:
        raise AssertionError(key)

    queue: WorkQueue[str] = WorkQueue("test", never, workers=1)
    for _ in range(10_000):
        queue.add("a", 3600.0)
        queue.add("a", 60.0)
        queue.forget("a")
    queue.add("kept", 60.0)

    assert sum(len(planned._heap) for planned in queue._planned.values()) < 200
    assert sum(len(waiting._heap) for waiting in queue._waiting.values()) < 200
    assert len(queue) == 1


async def test_a_success_ends_a_row_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails after it is the first failure again."""
    attempts: list[int] = []
    visits = 0
    done = asyncio.Event()

    def noted(attempt: int, random: float) -> float:
        del random
        attempts.append(attempt)
        return 0.001

    async def work(_key: str) -> float:
        nonlocal visits
        visits += 1
        if visits == 3:
            return 0.001
        if visits == 6:
            done.set()
        raise BrokerError(Reason.KUBERNETES_TIMEOUT, "slow")

    monkeypatch.setattr(workqueue, "backoff", noted)
    async with running(work) as queue:
        queue.add("a")
        async with asyncio.timeout(5):
            await done.wait()

    assert attempts[:4] == [1, 2, 1, 2]


async def test_idle_workers_see_what_falls_due_while_a_key_waits_for_its_own_visit() -> None:
    """One is visited for long and was added again; another one is due meanwhile."""
    started, free, seen = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(key: str) -> None:
        if key == "slow":
            started.set()
            await free.wait()
        else:
            seen.set()

    async with running(work, workers=2) as queue:
        queue.add("slow")
        await started.wait()
        queue.add("other", 0.05)
        queue.add("slow")
        async with asyncio.timeout(5):
            await seen.wait()
        free.set()

    assert len(queue) == 0


async def test_who_has_nobody_for_what_is_urgent_says_so() -> None:
    """It would wait for ever."""

    async def never(key: str) -> None:
        raise AssertionError(key)

    queue: WorkQueue[str] = WorkQueue("plain", never, workers=1)
    with pytest.raises(RuntimeError, match="the queue plain has nobody for what is urgent"):
        queue.hurry("a")


async def test_how_late_the_oldest_key_is() -> None:
    """Of those that are due and not being visited; one in a hurry is as late as it has waited."""

    async def work(_key: str) -> None:
        """Visit nothing."""

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1, urgent_workers=1)
    idle = queue.overdue()
    queue.add("later", 60)
    queue.add("late", -30)
    queue.hurry("urgent")
    late = queue.overdue()
    queue.add("late", -50)  # the entry before counts no more
    later = queue.overdue()
    queue.forget("late")
    hurried = queue.overdue()

    assert idle == 0
    assert 30 <= late < 45
    assert 50 <= later < 65
    assert 0 <= hurried < 15


@pytest.mark.parametrize("first", ["news", "hurry"])
async def test_what_goes_first_does_not_hide_how_late_all_else_is(first: str) -> None:
    """News come all the time: nobody would hear that what was planned is not come to."""

    async def work(_key: str) -> None:
        """Visit nothing."""

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1, urgent_workers=1)
    for number in range(3):
        queue.add(f"late-{number}", -100)
    late = queue.overdue()
    getattr(queue, first)("new")
    beside = queue.overdue()
    getattr(queue, first)("late-0")
    its_own = queue.overdue()
    for number in range(3):
        queue.forget(f"late-{number}")

    assert 100 <= late <= beside <= its_own < 115
    assert 0 <= queue.overdue() < 15


async def test_what_was_planned_more_than_an_hour_ago_is_as_late_as_that() -> None:
    """It is not taken for news."""

    async def work(_key: str) -> None:
        """Visit nothing."""

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1)
    queue.add("forgotten", -2 * FIRST_SECONDS)

    assert 2 * FIRST_SECONDS <= queue.overdue() < 2 * FIRST_SECONDS + 15


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_key_that_is_due_while_it_is_visited_is_late_afterwards(*, forgotten: bool) -> None:
    """Not meanwhile, for somebody is at it; nor afterwards where it was forgotten."""
    gates = {"a": asyncio.Event(), "blocker": asyncio.Event()}
    after = asyncio.get_running_loop().create_future()

    async def work(key: str) -> None:
        if key in gates:
            await gates[key].wait()
        elif not after.done():
            after.set_result(queue.overdue())

    async with running(work) as queue:
        queue.add("a", -200)
        await turns()
        visited = queue.overdue()
        queue.add("a", -100)
        before = queue.overdue()
        await turns()
        meanwhile = queue.overdue()
        queue.add("blocker")
        await turns()
        queue.news("first")
        if forgotten:
            queue.forget("a")
        gates["a"].set()
        async with asyncio.timeout(5):
            late = await after

    assert 100 <= before < 115
    assert visited == meanwhile == 0
    assert (late < 15) if forgotten else (100 <= late < 115)


async def test_how_late_the_oldest_key_is_takes_no_look_at_all_of_them() -> None:
    """It is asked with each status and each look while ten thousand are due."""

    async def work(_key: str) -> None:
        """Visit nothing."""

    queue: WorkQueue[str] = WorkQueue("test", work, workers=1)
    for key in range(10_000):
        queue.add(str(key), -key)
    begin = time.process_time()
    for _ in range(1_000):
        queue.overdue()

    assert time.process_time() - begin < 0.05  # a thousand looks at all of them take three times that
