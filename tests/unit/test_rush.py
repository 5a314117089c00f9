"""When many copies are due, what is routine stands back; not for ever."""

from collections import Counter
from itertools import pairwise

import pytest

from broker.services.rush import LATE_SECONDS, LONGEST_SECONDS, Rush
from tests.support.rotation import HandClock


class Bench:
    """A rush of which a test says how late the oldest copy is."""

    def __init__(self) -> None:
        self.clock, self.late = HandClock(), 0.0
        self.rush = Rush(self.clock)
        self.rush.late = lambda: self.late

    def stood_back(self, seconds: int) -> int:
        """Ask every second, and return in how many of them routine stands back."""
        count = 0
        for _ in range(seconds):
            self.clock.pass_(1)
            count += self.rush.on
        return count


def test_copies_that_are_looked_at_in_time_are_no_rush() -> None:
    """Nor is there one where nothing is kept in Vault."""
    bench = Bench()
    bench.late = LATE_SECONDS / 2

    assert bench.stood_back(600) == 0
    assert not Rush(bench.clock).on


def test_a_rush_ends_with_the_last_copy_that_is_late() -> None:
    """At once."""
    bench = Bench()
    bench.late = LATE_SECONDS
    during = bench.stood_back(60)
    bench.late = 0.0

    assert during == 60
    assert bench.stood_back(10) == 0


def test_routine_is_not_starved_by_a_rush_that_never_ends() -> None:
    """After two minutes it goes on for half of the time."""
    bench = Bench()
    bench.late = 1000.0
    first = bench.stood_back(int(LONGEST_SECONDS))
    then = bench.stood_back(1000)

    assert first == LONGEST_SECONDS
    assert 400 <= then <= 600


def test_the_next_rush_finds_what_time_has_given_back() -> None:
    """Two minutes of each, where there were two minutes without one between them."""
    bench = Bench()
    bench.late = 1000.0
    bench.stood_back(int(LONGEST_SECONDS))
    bench.late = 0.0
    bench.stood_back(int(LONGEST_SECONDS) + 1)
    bench.late = 1000.0

    assert bench.stood_back(int(LONGEST_SECONDS)) == LONGEST_SECONDS


def test_nobody_asking_for_long_gives_no_more_than_the_longest() -> None:
    """A rush after a quiet night is as long as any other."""
    bench = Bench()
    bench.clock.pass_(50_000)
    bench.late = 1000.0

    assert LONGEST_SECONDS <= bench.stood_back(int(LONGEST_SECONDS) + 20) <= LONGEST_SECONDS + 11


@pytest.mark.parametrize("pace", [0.05, 1.0, 7.0, 45.0])
def test_all_who_ask_get_their_half_whoever_asks_before_them(pace: float) -> None:
    """A visit asks for its look, and a moment later the board for the status that follows: each goes on in its time."""
    bench = Bench()
    bench.late = 1000.0
    while bench.rush.on:
        bench.clock.pass_(pace)
    rounds = int(max(2000.0, 20 * LONGEST_SECONDS / pace))
    stood_back = Counter[str]()
    for _ in range(rounds):
        bench.clock.pass_(pace)
        stood_back["look"] += bench.rush.on
        bench.clock.pass_(0.001)
        stood_back["status"] += bench.rush.on

    for asker in ("look", "status"):
        assert 0.4 * rounds <= stood_back[asker] <= 0.6 * rounds, asker


@pytest.mark.parametrize("pace", [0.05, 1.0, 7.0])
def test_routine_goes_on_for_long_enough_to_get_on(pace: float) -> None:
    """For half of the longest at a time, and stands back for as long: not for a moment between two asks."""
    bench = Bench()
    bench.late = 1000.0
    changes, before = list[float](), True
    while len(changes) < 5:
        bench.clock.pass_(pace)
        if bench.rush.on is not before:
            changes.append(bench.clock.monotonic())
            before = not before
    spans = [later - earlier for earlier, later in pairwise(changes)]

    assert spans == pytest.approx([LONGEST_SECONDS / 2] * 4, abs=2 * pace + 0.1)


def test_a_rush_that_ended_after_an_ask_is_not_charged_until_the_next_one() -> None:
    """Nobody knows when it ended: the next one is as long as any other."""
    bench = Bench()
    bench.late = 1000.0
    began = bench.rush.on
    bench.late = 0.0
    bench.clock.pass_(10 * LONGEST_SECONDS)
    ended = bench.rush.on
    bench.late = 1000.0

    assert (began, ended) == (True, False)
    assert bench.stood_back(int(LONGEST_SECONDS)) == LONGEST_SECONDS


def test_a_rush_during_which_few_ask_is_charged_all_the_same() -> None:
    """Where it was on at both ends."""
    bench = Bench()
    bench.late = 1000.0
    began = bench.rush.on
    bench.clock.pass_(LONGEST_SECONDS)

    assert (began, bench.rush.on) == (True, False)
