"""Durations, renewals and waits."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.model.duration import format_duration, parse_duration
from broker.model.schedule import RENEWALS_SPREAD, backoff, renewal_time, spread

START = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.integers(0, 10**7))
def test_a_duration_survives_being_written(seconds: int) -> None:
    """format_duration and parse_duration are each other's inverse."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "1.5h", "-1m", " 1m", "1m1h", "1d", "1h 1m", "\u0661m"])
def test_anything_else_is_no_duration(text: str) -> None:
    """No bare numbers, fractions, signs, spaces, other orders or digits."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(600, 86400), st.integers(60, 43200), st.text(max_size=20))
def test_a_renewal_leaves_readers_at_least_renew_before(ttl: int, before: int, key: str) -> None:
    """It may come early, for spreading, but never later than asked and never at once."""
    before = min(before, ttl - 60)
    end = START + timedelta(seconds=ttl)

    moment = renewal_time(START, end, ttl, before, key)

    assert (end - moment).total_seconds() >= before
    assert (end - moment).total_seconds() <= before + (ttl - before) * RENEWALS_SPREAD + 0.001
    assert moment > START


def test_a_shortened_life_shortens_the_margin_too() -> None:
    """A token cut from 12 h to 1 h is not renewed 4 h ahead, which would be all the time."""
    moment = renewal_time(START, START + timedelta(hours=1), 12 * 3600, 4 * 3600, "x")

    assert timedelta(minutes=30) < moment - START <= timedelta(minutes=40)


def test_keys_spread_evenly() -> None:
    """Ten thousand names fill ten bins with about a thousand each."""
    bins = [0] * 10
    for number in range(10_000):
        bins[int(spread(f"client-{number}") * 10)] += 1

    assert max(bins) < 1150
    assert min(bins) > 850


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_waits_grow_but_stay_within_bounds(attempt: int, random: float) -> None:
    """Never shorter than half the first wait, never longer than the longest, however many failures."""
    assert 0.5 <= backoff(attempt, random) <= 60
    assert backoff(1, 1.0) < backoff(3, 1.0) < backoff(60, 1.0) == 60
