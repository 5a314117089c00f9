"""One leads, and stops before another may start: in virtual time, each candidate with a clock of its own."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from broker.model.lease import LeaseRecord, Term, Timing
from tests.support.election import START, TICK, TIMING, Candidate, Trip, World

ALONE, TWO = 1, 2
LOST = Trip(there=None)


def _with_leader(world: World) -> tuple[Candidate, Candidate]:
    """Start two, of which the first leads and has just renewed its lease."""
    first = world.add("first")
    world.pass_(1)
    second = world.add("second", offset=1000.0)
    made = world.lease.record
    while world.lease.record is made:
        world.pass_(TICK)
    assert world.leaders == [first]
    return first, second


def _until_leading(world: World, candidate: Candidate, at_most: float) -> float:
    """Let time pass until it leads, and return how much that took."""
    started = world.time
    while not candidate.leading:
        world.pass_(TICK)
        assert world.time - started <= at_most, f"{candidate.name} does not lead"
    return world.time - started


def test_the_first_leads_at_once_and_goes_on() -> None:
    """A Lease that is not there is made; nobody waits for anything."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(TICK)
        at_once = first.leading
        world.pass_(600)
        record = world.lease.record

    assert at_once
    assert first.told == [True]
    assert record is not None
    assert (record.term.holder, record.term.duration_seconds, record.term.transitions) == ("first", 15, 0)
    assert record.term.acquired_at == START
    assert record.term.renewed_at is not None
    assert START + timedelta(seconds=595) <= record.term.renewed_at <= START + timedelta(seconds=601)
    assert 124 <= first.calls <= 146  # each 4 to 5 s: more than with 5 each, which are 121


def test_who_waits_looks_often_and_writes_nothing() -> None:
    """A candidate costs the API server a read each 1.2 to 1.5 s."""
    with World.open() as world:
        _, second = _with_leader(world)
        before = second.calls
        world.pass_(100)

    assert 57 <= second.calls - before <= 84
    assert second.told == []


def test_a_killed_leader_is_replaced_when_its_lease_is_over() -> None:
    """Not before the 15 s that the record says, and not long after."""
    with World.open() as world:
        first, second = _with_leader(world)
        world.kill(first)
        waited = _until_leading(world, second, at_most=15 + 3 + TICK)
        world.pass_(20)
        record = world.lease.record

    assert waited >= 15
    assert record is not None
    assert (record.term.holder, record.term.transitions) == ("second", 1)


def test_a_leader_that_stops_gives_the_lease_back() -> None:
    """The next one leads at its next look, within 2 s."""
    with World.open() as world:
        first, second = _with_leader(world)
        world.stop(first)
        _until_leading(world, second, at_most=2 + TICK)

    assert first.told == [True, False]
    assert first.task.cancelled()


def test_a_candidate_that_stops_gives_nothing_back() -> None:
    """The Lease of somebody else stays as it is."""
    with World.open() as world:
        first, second = _with_leader(world)
        world.stop(second)
        world.pass_(30)

    assert first.told == [True]
    assert second.told == []


def test_a_stop_does_not_wait_for_an_api_server_that_hangs() -> None:
    """Giving the Lease back takes 2 s at most; otherwise it runs out."""
    with World.open() as world:
        first, second = _with_leader(world)
        first.trips = [LOST] * 5
        world.stop(first)
        world.pass_(TICK)
        leads_on = first.leading
        world.pass_(2)
        ended = first.task.done()
        _until_leading(world, second, at_most=15 + 2)

    assert (leads_on, ended) == (False, True)


def test_a_stop_without_an_api_server_ends_well() -> None:
    """A refused call at the end is no crash."""
    with World.open() as world:
        first, _ = _with_leader(world)
        first.trips = [Trip(refused=True)]
        world.stop(first)
        world.pass_(TICK)
        ended = first.task.cancelled()

    assert ended


def test_a_frozen_leader_has_stopped_before_another_starts() -> None:
    """It leads until 10 s after its last renewal was sent, by the clock alone, and another starts at 15 s."""
    with World.open() as world:
        first, second = _with_leader(world)
        world.freeze(first, 60)
        lapsed = 0.0
        while first.leading:
            world.pass_(TICK)
            lapsed += TICK
        started = lapsed + _until_leading(world, second, at_most=15)
        thawed_to_lead = world.time
        world.pass_(60)

    assert lapsed == pytest.approx(10, abs=TICK)
    assert 15 <= started <= 15 + 3 + TICK
    assert thawed_to_lead < 60
    assert first.told == [True, False]
    assert second.told == [True]


def test_a_leader_that_was_frozen_for_a_moment_leads_on() -> None:
    """Nobody else may take the Lease after 12 s; the leader was none for the last of them, and says so."""
    with World.open() as world:
        first, second = _with_leader(world)
        world.freeze(first, 12)
        world.pass_(15)
        leaders = world.leaders

    assert leaders == [first]
    assert first.told == [True, False, True]
    assert second.told == []


def test_a_lead_counts_from_before_the_renewal_was_sent() -> None:
    """A renewal that takes 2.5 s to arrive and to be answered gains nothing by that."""
    with World.open() as world:
        first = world.add("first")
        first.trips = [Trip(), Trip(there=2.0, back=0.5), *[LOST] * 20]
        world.pass_(2.5)
        after_answer = first.leading
        world.pass_(10 - 2.5 - TICK)
        nearly_over = first.leading
        world.pass_(TICK)
        over = first.leading

    assert (after_answer, nearly_over, over) == (True, True, False)


@pytest.mark.parametrize("fault", [LOST, Trip(back=None), Trip(refused=True)], ids=["lost", "answer lost", "refused"])
def test_one_failure_costs_nothing(fault: Trip) -> None:
    """There is time for a second try before the lead is over."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(1)
        first.trips = [fault]
        world.pass_(60)
        leading = first.leading

    assert leading
    assert first.told == [True]


def test_a_renewal_that_was_given_up_and_carried_out_is_no_gap_in_the_lead() -> None:
    """The next one meets it, and must look whose it was: what others leave undone meanwhile, nobody would do again."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(1)
        made = world.lease.record
        assert made is not None
        world.lease.put(made.term, made)
        first.trips = [Trip(back=2 * TICK)] * 3
        leading = set()
        while first.trips:
            world.pass_(TICK)
            leading.add(first.leading)

    assert leading == {True}
    assert first.told == [True]


def test_who_cannot_find_out_who_wrote_leads_for_a_look_more_and_no_longer() -> None:
    """Its time would last longer."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(1)
        world.lease.put(Term("other", 15, START, START, 7), world.lease.record)
        first.trips = [Trip(), *[LOST] * 9]
        while first.trips[:1] == [Trip()]:
            world.pass_(TICK)
        shortly_before = first.leading
        world.pass_(TIMING.call)
        over = first.leading

    assert (shortly_before, over) == (True, False)
    assert first.told == [True, False]


def test_a_lead_that_was_over_for_a_moment_is_told_as_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process stood still until its time was over, and its renewal, which arrived all the same, lasts 1 s more."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(1)

        async def slow(term: Term, over: LeaseRecord | None) -> LeaseRecord | None:
            monkeypatch.undo()
            world.time += TIMING.lead - 1
            return world.lease.put(term, over)

        monkeypatch.setattr(first, "write", slow)
        world.pass_(30)

    assert first.told == [True, False, True, False, True]


@pytest.mark.parametrize("fault", [LOST, Trip(refused=True)], ids=["lost", "refused"])
def test_a_leader_without_an_answer_stops_after_ten_seconds_and_says_so(fault: Trip) -> None:
    """Errors do not end the lead, time does; when the API server is back, it leads again."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(TICK)
        first.trips = [fault] * 6
        world.pass_(10 - 2 * TICK)
        shortly_before = first.leading
        world.pass_(2 * TICK)
        told = list(first.told)
        world.pass_(30)

    assert shortly_before
    assert told == [True, False]
    assert first.told == first.counted == [True, False, True]


def test_a_failure_that_lasts_is_logged_once() -> None:
    """Without its Role the broker tries on for days; a failure of another kind, and one after a success, is news."""
    refused, well = Trip(refused=True), Trip()
    with World.open() as world, capture_logs() as logs:
        world.add("first").trips = [refused, refused, refused, LOST, LOST, well, well, LOST, LOST]
        world.pass_(60)

    assert [line["reason"] for line in logs if line["event"] == "leader.lease_failed"] == [
        "kubernetes_unavailable",
        "timeout",
        "timeout",
    ]


def test_a_write_of_somebody_else_ends_the_lead_at_once() -> None:
    """A conflict says that the record is another's: the lead is over though its time is not."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(1)
        world.lease.put(Term("other", 15, START, START, 7), world.lease.record)
        world.pass_(5)
        told = list(first.told)
        _until_leading(world, first, at_most=15 + 2)
        record = world.lease.record

    assert told == [True, False]
    assert record is not None
    assert record.term.transitions == 8


def test_a_lease_that_nobody_holds_is_taken_at_the_first_look() -> None:
    """However long it says that it lasts."""
    with World.open() as world:
        world.lease.put(Term("", 300, None, None, 2), None)
        first = world.add("first")
        world.pass_(TICK)
        leading = first.leading

    assert leading


def test_a_lease_that_was_deleted_is_made_again() -> None:
    """At once, and told as a new lead: nobody knows who else led."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(1)
        world.lease.record = None
        world.pass_(5)
        record = world.lease.record

    assert record is not None
    assert record.term.holder == "first"
    assert first.told == [True, False, True]


def test_a_lead_of_somebody_else_is_told_also_when_it_is_over_already() -> None:
    """What this one remembers of its own lead may have been changed by the other since."""
    with World.open() as world:
        first = world.add("first")
        world.pass_(1)
        taken = world.lease.put(Term("other", 15, START, START, 7), world.lease.record)
        world.lease.put(Term("", 15, None, None, 7), taken)
        world.pass_(6)
        leading = first.leading
        told = list(first.told)

    assert leading
    assert told == [True, False, True]


def test_of_two_that_start_together_one_leads() -> None:
    """Both see no Lease, and one of them makes it."""
    with World.open() as world:
        one, other = world.add("one"), world.add("other")
        one.trips = other.trips = [Trip(back=0.5), Trip(back=0.5)]
        world.pass_(60)
        leaders = world.leaders

    assert len(leaders) == 1
    assert sorted([one.told, other.told]) == [[], [True]]


def test_each_record_is_waited_for_as_long_as_it_says() -> None:
    """A leader of another configuration is not replaced too early."""
    with World.open() as world:
        world.lease.put(Term("other", 40, START, START, 0), None)
        first = world.add("first")
        waited = _until_leading(world, first, at_most=40 + 2 + TICK)

    assert waited >= 40


def test_a_record_that_changes_is_waited_for_anew() -> None:
    """Whatever its dates say: those are another machine's."""
    with World.open() as world:
        first = world.add("first", offset=0.0)
        world.lease.put(Term("other", 15, None, START.replace(year=2000), 0), None)
        for _ in range(10):
            world.pass_(10)
            assert not first.leading
            world.lease.put(Term("other", 15, None, START.replace(year=2000), 0), world.lease.record)
        _until_leading(world, first, at_most=15 + 4)
        told = list(first.told)

    assert told == [True]


def test_an_unfit_leader_makes_room_for_a_fit_replica() -> None:
    """When what it had begun is over; it says so itself first, and never do both lead."""
    with World.open() as world:
        first, second = _with_leader(world)
        first.unfit, second.fit, began = True, True, world.time
        while first.leading:
            world.pass_(TICK)
        lasted = world.time - began
        waited = _until_leading(world, second, at_most=TIMING.margin + 3 * TIMING.retry + TICK)
        world.pass_(60)
        leaders, record = world.leaders, world.lease.record

    assert lasted <= 2 * TIMING.renew + 3 * TIMING.retry
    assert leaders == [second]
    assert waited >= TIMING.margin - TICK
    assert first.told == [True, False]
    assert record is not None
    assert (record.term.holder, record.term.unfit, record.term.candidate) == ("second", False, "")


@pytest.mark.parametrize("unfit", [False, True])
def test_an_unfit_leader_leads_on_where_nobody_is_fit(unfit: bool) -> None:  # noqa: FBT001 - a parameter
    """Nothing changes hands when all replicas have lost sight of the same thing, nor when one knows nothing yet."""
    with World.open() as world:
        first, second = _with_leader(world)
        first.unfit, second.unfit = True, unfit
        world.pass_(300)
        record = world.lease.record

    assert first.told == [True]
    assert second.told == []
    assert record is not None
    assert record.term.unfit


def test_a_fit_leader_is_left_alone() -> None:
    """However fit the others are."""
    with World.open() as world:
        first, second = _with_leader(world)
        second.fit = True
        world.pass_(60)

    assert (first.told, second.told) == ([True], [])


def test_a_leader_that_is_fit_again_keeps_its_lead() -> None:
    """An offer that comes when the reason for it has passed is not taken up, and leaves no trace."""
    with World.open() as world:
        first, second = _with_leader(world)
        first.unfit = True
        world.pass_(2 * TIMING.renew)
        second.fit = True
        while world.lease.record is None or not world.lease.record.term.candidate:
            world.pass_(TICK)
        first.unfit = False
        world.pass_(60)
        record = world.lease.record

    assert (first.told, second.told) == ([True], [])
    assert record is not None
    assert (record.term.unfit, record.term.candidate) == (False, "")


def test_who_gave_the_lead_up_waits_before_it_takes_it_again() -> None:
    """A lease's length: where the candidate died, an unfit leader is better than none."""
    with World.open() as world:
        first, second = _with_leader(world)
        first.unfit, second.fit = True, True
        while first.leading:
            world.pass_(TICK)
        world.kill(second)
        waited = _until_leading(world, first, at_most=TIMING.margin + TIMING.duration + 4 * TIMING.retry)

    assert waited >= TIMING.margin + TIMING.duration - TICK
    assert second.told == []


def test_of_two_that_are_fit_one_takes_over() -> None:
    """Both may offer; one of them leads, and stays."""
    with World.open() as world:
        first, second = _with_leader(world)
        third = world.add("third", offset=2000.0)
        first.unfit, second.fit, third.fit = True, True, True
        world.pass_(60)
        leaders = world.leaders

    assert len(leaders) == 1
    assert sorted([second.told, third.told]) == [[], [True]]


@pytest.mark.parametrize("duration", [5, 15, 300])
def test_the_lead_is_over_well_before_the_lease(duration: int) -> None:
    """A third of the lease is left for calls under way, and two tries fit into the lead."""
    timing = Timing(duration)

    assert timing.lead == pytest.approx(duration * 2 / 3)
    assert timing.lead + timing.margin <= timing.duration
    assert timing.renew + timing.call + timing.retry < timing.lead + 0.001
    assert TIMING.renew == 5
    assert TIMING.lead == 10
