"""What every figure should be, and what is printed of them."""

import asyncio
import sys
import time
from collections.abc import Collection, Coroutine, Iterator, Mapping
from traceback import format_exception
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
}
SCALE_AT_MOST = {
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
"""What ``python -m bench.scale`` measures by default, and what each figure of it should be."""

EXPECTED = (BenchError, BuildError, ProgramError)
"""Their messages say enough."""


def run(
    measuring: Coroutine[Any, Any, Mapping[str, float]],
    so_far: Mapping[str, float] | None = None,
    wanted: Collection[str] = (),
) -> int:
    """Measure and print; return 1 where an answer was wrong or something could not be measured, such as one ``wanted``.

    ``so_far`` are the figures that are known by then, which are printed all the same.
    """
    started = time.monotonic()
    figures: Mapping[str, float] = {}
    try:
        figures = asyncio.run(measuring)
    except* Exception as errors:  # noqa: BLE001 - whatever it is, what is known took hours
        for error in _each(errors):
            say(str(error) if isinstance(error, EXPECTED) else "".join(format_exception(error)).rstrip())
    finally:
        say(f"took {time.monotonic() - started:.0f} s")
        known = figures or so_far or {}
        _report(known)
    missing = [name for name in wanted if name not in known]
    for name in missing:
        say(f"not measured: {name}")
    return 0 if figures and not missing else 1


def _each(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _each(error)
        else:
            yield error


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
    most_of = AT_MOST | SCALE_AT_MOST
    low = [f"{it} is {figures[it]:.2f}, not {most:g}" for it, most in AT_LEAST.items() if figures.get(it, most) < most]
    high = [f"{it} is {figures[it]:.2f}, over {most:g}" for it, most in most_of.items() if figures.get(it, most) > most]
    return low + high
