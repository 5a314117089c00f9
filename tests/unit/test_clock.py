"""The real time."""

import time

import pytest

from broker.clock import SystemClock


def test_durations_count_the_sleep_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_BOOTTIME goes on where CLOCK_MONOTONIC stands still, and a lead must not outlive a sleep."""
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 100.0, time.CLOCK_MONOTONIC: 1.0}.__getitem__)

    assert SystemClock().monotonic() == 100.0
