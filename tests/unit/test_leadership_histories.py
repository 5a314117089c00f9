"""Whatever happens to processes and to the network, two never lead at once; when it is over, one does."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.election import Candidate, Trip, World

DELAY = st.sampled_from([0.0, 0.25, 1.0, 2.5, 4.0, 12.0, 17.0])
TRIP = st.one_of(
    st.builds(Trip, there=st.one_of(st.none(), DELAY), back=st.one_of(st.none(), DELAY)),
    st.just(Trip(refused=True)),
    st.just(Trip()),
)
WHO = st.sampled_from([0, 0, 1, 2])
"""0 is who leads at that moment, if anybody does."""
LONG = st.sampled_from([1.0, 4.0, 9.0, 10.0, 12.0, 14.75, 15.0, 18.0, 40.0])
STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.25, 1.0, 4.0, 9.75, 14.75, 16.0])),
    st.tuples(st.just("freeze"), WHO, LONG),
    st.tuples(st.just("stall"), WHO, LONG),
    st.tuples(st.just("trips"), WHO, st.lists(TRIP, max_size=6)),
    st.tuples(st.just("fitness"), WHO, st.sampled_from(["fit", "unfit", ""])),
    st.tuples(st.just("stop"), WHO),
    st.tuples(st.just("kill"), WHO),
)
CLOCK = st.tuples(st.sampled_from([0.9, 1.0, 1.1]), st.sampled_from([0.0, -5e5, 1e6]))
SLOW, FAST = (0.9, 0.0), (1.1, 0.0)
LATE, LOST = Trip(there=12.0, back=0.0), Trip(there=None)


@settings(max_examples=150, deadline=None)
@given(st.lists(CLOCK, min_size=3, max_size=3), st.lists(STEP, max_size=16))
@example([SLOW, SLOW, FAST], [("trips", 0, [LATE] * 6), ("wait", 16.0), ("wait", 16.0)])
@example([SLOW, FAST, FAST], [("freeze", 0, 18.0), ("wait", 16.0), ("wait", 4.0)])
@example([SLOW, FAST, FAST], [("stall", 0, 12.0), ("wait", 16.0), ("wait", 16.0)])
@example([SLOW, FAST, FAST], [("stop", 0), ("wait", 4.0)])
@example([SLOW, FAST, FAST], [*(("trips", who, [LOST] * 3) for who in range(3)), ("wait", 16.0)])
@example([SLOW, FAST, FAST], [("fitness", 0, "unfit"), ("fitness", 1, "fit"), ("wait", 9.75), ("wait", 4.0)])
@example([SLOW, FAST, FAST], [*(("fitness", who, ("unfit", "fit", "fit")[who]) for who in range(3)), ("wait", 16.0)])
def test_two_never_lead_at_once_and_in_the_end_one_does(
    clocks: list[tuple[float, float]], history: list[tuple[object, ...]]
) -> None:
    """Frozen, killed, stopped and unfit processes, calls and answers that are lost or late, uneven clocks."""
    with World.open() as world:
        for number, (rate, offset) in enumerate(clocks):
            world.add(f"p{number}", rate=rate, offset=offset)
            world.pass_(1)
        for step in history:
            _step(world, step)
        _calm(world)
        [leader] = world.leaders
        calls = [one.calls for one in _running(world)]
        world.pass_(20)
        still, more = world.leaders, [one.calls for one in _running(world)]
        told = [(one.counted, one.told) for one in world.candidates]

    assert still == [leader]
    assert all(after > before for before, after in zip(calls, more, strict=True))
    assert all(counted == heard for counted, heard in told)


def _running(world: World) -> list[Candidate]:
    """Return the processes that were not asked to end, the one that leads first."""
    running = [one for one in world.candidates if not (one.task.done() or one.task.cancelling())]
    return sorted(running, key=lambda one: not one.leading)


def _step(world: World, step: tuple[object, ...]) -> None:
    match step:
        case ("wait", float(seconds)):
            world.pass_(seconds)
        case ("freeze", int(who), float(seconds)):
            world.freeze(_running(world)[who], seconds)
        case ("stall", int(who), float(seconds)):
            _running(world)[who].stall = seconds
        case ("trips", int(who), list(trips)):
            _running(world)[who].trips = list(trips)
        case ("fitness", int(who), str(fitness)):
            one = _running(world)[who]
            one.fit, one.unfit = fitness == "fit", fitness == "unfit"
        case (("stop" | "kill") as how, int(who)):
            ended = _running(world)[who]
            (world.stop if how == "stop" else world.kill)(ended)
            _next(world, ended)
        case _:
            raise AssertionError(step)


def _next(world: World, ended: Candidate) -> None:
    """Start another process on the machine of one that ended."""
    world.add(ended.name + "'", rate=ended.rate, offset=ended.offset)


def _calm(world: World) -> None:
    """Let all processes run and all calls through from now on, and what was under way arrive."""
    for candidate in world.candidates:
        candidate.trips, candidate.stall, candidate.frozen_until = [], 0.0, world.time
    world.pass_(45)
