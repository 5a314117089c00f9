"""What every figure should be, and what is printed of them."""

import asyncio
import sys
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from bench.errors import BenchError
from tests.support.go import BuildError
from tests.support.processes import ProgramError

AT_LEAST = {"ratio_to_openbao_c8": 120.0, "ratio_to_direct_c32": 0.70}
AT_MOST = {
    "broker_cpu_us_per_issuance_c32": 400.0,
    "added_p50_ms_c1": 2.0,
    "broker_rss_mb": 90.0,
    "startup_ms": 1500.0,
    "storm_5000_seconds": 10.0,
    "storm_token_requests": 50.0,
    "noisy_neighbour_p99_ratio": 10.0,
    "clients_10000_sync_seconds": 10.0,
    "clients_10000_rss_mb": 150.0,
    "registry_change_seconds": 1.0,
    "rotate_10000_seconds": 60.0,
    "issue_p99_ratio_while_rotating": 2.0,
    "growth_first_look": 1.25,
    "growth_calls": 1.1,
    "growth_sync": 2.0,
    "growth_rss": 1.25,
    "growth_follower_calls": 1.25,
    "growth_follower_rss": 1.25,
    "follower_start_calls_10000": 100.0,
    "follower_calls_a_minute_10000": 100.0,
}


def run(measuring: Coroutine[Any, Any, Mapping[str, float]], so_far: Mapping[str, float] | None = None) -> int:
    """Measure and print; return 1 where an answer was wrong or something could not be measured.

    ``so_far`` are the figures that are known by then, which are printed all the same.
    """
    started = time.monotonic()
    figures: Mapping[str, float] = {}
    try:
        figures = asyncio.run(measuring)
    except* (BenchError, BuildError, ProgramError) as errors:
        for error in errors.exceptions:
            say(str(error))
    say(f"took {time.monotonic() - started:.0f} s")
    _report(figures or so_far or {})
    return 0 if figures else 1


def _report(figures: Mapping[str, float]) -> None:
    """Print a line a figure, and on stderr those that are not what they should be."""
    for line in _missed(figures):
        say(f"missed: {line}")
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")


def say(line: str) -> None:
    """Tell how far a run has got."""
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()


def _missed(figures: Mapping[str, float]) -> list[str]:
    low = [f"{it} is {figures[it]:.2f}, not {most:g}" for it, most in AT_LEAST.items() if figures.get(it, most) < most]
    high = [f"{it} is {figures[it]:.2f}, over {most:g}" for it, most in AT_MOST.items() if figures.get(it, most) > most]
    return low + high
