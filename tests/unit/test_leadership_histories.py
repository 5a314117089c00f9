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
WHO = st.integers(0, 2)
STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.25, 1.0, 4.0, 9.75, 14.75, 16.0])),
    st.tuples(st.just("freeze"), WHO, st.sampled_from([1.0, 4.0, 9.0, 10.0, 14.75, 15.0, 18.0, 40.0])),
    st.tuples(st.just("trips"), WHO, st.lists(TRIP, max_size=6)),
    st.tuples(st.just("stop"), WHO),
    st.tuples(st.just("kill"), WHO),
)
CLOCK = st.tuples(st.sampled_from([0.9, 1.0, 1.1]), st.sampled_from([0.0, -5e5, 1e6]))
LATE = Trip(there=12.0, back=0.0)


@settings(max_examples=150, deadline=None)
@given(st.lists(CLOCK, min_size=3, max_size=3), st.lists(STEP, max_size=16))
@example([(1.0, 0.0)] * 3, [("wait", 1.0), ("trips", 0, [LATE] * 6), ("wait", 16.0), ("wait", 16.0)])
@example([(0.9, 0.0), (1.1, 0.0), (1.1, 0.0)], [("wait", 1.0), ("freeze", 0, 18.0), ("wait", 16.0), ("wait", 4.0)])
def test_two_never_lead_at_once_and_in_the_end_one_does(
    clocks: list[tuple[float, float]], history: list[tuple[object, ...]]
) -> None:
    """Frozen, killed and stopped processes, calls and answers that are lost or late, clocks that run unevenly."""
    with World.open() as world:
        slots = [world.add(f"p{number}", rate=rate, offset=offset) for number, (rate, offset) in enumerate(clocks)]
        for step in history:
            _step(world, slots, step)
        _calm(world)
        world.pass_(20)
        [leader] = world.leaders
        world.pass_(20)
        still = world.leaders

    assert still == [leader]
    assert all(one.counted == one.told for one in slots)


def _step(world: World, slots: list[Candidate], step: tuple[object, ...]) -> None:
    match step:
        case ("wait", float(seconds)):
            world.pass_(seconds)
        case ("freeze", int(who), float(seconds)):
            world.freeze(slots[who], seconds)
        case ("trips", int(who), list(trips)):
            slots[who].trips = list(trips)
        case ("stop", int(who)):
            world.stop(slots[who])
            slots[who] = _next(world, slots[who])
        case ("kill", int(who)):
            world.kill(slots[who])
            slots[who] = _next(world, slots[who])
        case _:
            raise AssertionError(step)


def _next(world: World, ended: Candidate) -> Candidate:
    """Start another process on the machine of one that ended."""
    return world.add(ended.name + "'", rate=ended.rate, offset=ended.offset)


def _calm(world: World) -> None:
    """Let all processes run and all calls through from now on, and what was under way arrive."""
    for candidate in world.candidates:
        candidate.trips, candidate.frozen_until = [], world.time
    world.pass_(45)
