"""A rate is kept to on the average, whoever asks when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.services.storms.token_bucket import TokenBucket
from tests.support.rotation import HandClock


def test_a_burst_is_there_at_once_and_more_later() -> None:
    """What was taken ahead is waited for by the next one, too."""
    bucket = TokenBucket(HandClock(), qps=10, burst=5)

    assert [bucket.reserve(5), bucket.reserve(10), bucket.reserve(1)] == [0, 1, pytest.approx(1.1)]


def test_tokens_come_back_up_to_the_burst() -> None:
    """A long rest saves no more than that."""
    clock = HandClock()
    bucket = TokenBucket(clock, qps=10, burst=5)
    bucket.reserve(15)
    clock.pass_(0.5)
    early = bucket.reserve(0)
    clock.pass_(3600)

    assert early == pytest.approx(0.5)
    assert [bucket.reserve(5), bucket.reserve(5)] == [0, pytest.approx(0.5)]


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 3)), max_size=50))
def test_no_more_is_done_than_the_rate_and_a_burst(asked: list[tuple[int, float]]) -> None:
    """At each turn that is had, all that was done until then fits in the time since the start."""
    clock, done = HandClock(), 0
    bucket, start = TokenBucket(clock, qps=10, burst=20), clock.monotonic()
    for tokens, pause in asked:
        clock.pass_(pause)
        done += tokens
        turn = clock.monotonic() + bucket.reserve(tokens)
        assert done <= 20 + 10 * (turn - start) + 1e-3
