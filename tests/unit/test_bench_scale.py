"""How the bench finds time for what it measures, and what it prints where something fails."""

import asyncio
from collections.abc import Mapping

import pytest

from bench.bounds import run
from bench.errors import BenchError
from bench.growth import Grown
from bench.scale import FEWEST_ROUNDS, ROUND_SECONDS, ROUNDS, Rotated, renewed_after, rounds_until
from broker.model.schedule import RENEWALS_SPREAD


def _looked(seconds: float) -> Grown:
    return Grown(seconds, 13.0, 1.0, 90.0, 100.0, 0.3)


def _rounds(renewed: int, first_look: float) -> int:
    """Return how many rounds are left after a first look, before the first copy is due."""
    return rounds_until(renewed * (1 - RENEWALS_SPREAD), first_look)


def _rotated(before: float | None) -> Rotated:
    return Rotated(48.1, 126.0, ROUNDS, before, 0.03, {})


@pytest.mark.parametrize("slower", [1, 2, 5])
def test_on_a_slower_machine_there_is_as_much_time(slower: int) -> None:
    """The look at a thousand tells how long that at ten thousand takes, give or take half."""
    renewed = renewed_after(10_000, {100: _looked(4.7 * slower), 1000: _looked(25.6 * slower)})

    assert _rounds(renewed, 256 * slower) == ROUNDS
    assert _rounds(renewed, 256 * slower * 1.5) == ROUNDS


def test_without_another_number_before_a_busy_machine_has_time() -> None:
    """As slow as one was on which the tests ran."""
    assert _rounds(renewed_after(10_000, {}), 436) == ROUNDS


def test_rounds_end_before_the_first_copy_is_due() -> None:
    """There may be time for some, and for none."""
    assert rounds_until(1000, 900) * ROUND_SECONDS < 100
    assert rounds_until(1000, 900) >= FEWEST_ROUNDS
    assert rounds_until(1000, 995) == rounds_until(1000, 2000) == 0


def test_all_but_the_ratio_is_known_without_anything_to_compare_with() -> None:
    """Rotation was measured all the same."""
    assert _rotated(None).figures(100) == {"rotate_100_seconds": 48.1, "rotate_100_seconds_beside_callers": 126.0}
    assert _rotated(0.06).figures(100)["issue_p99_ratio_while_rotating"] == 0.5


@pytest.mark.parametrize("error", [BenchError("the broker has gone"), OSError("the broker has gone")])
def test_what_is_known_is_printed_where_the_rest_fails(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    """One line a figure; the exit code tells that some are missing. Also where a program dies in a call."""
    figures: dict[str, float] = {}

    async def measuring() -> Mapping[str, float]:
        figures["clients_100_calls_each"] = 13.5
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_raise(error))
        return figures

    assert run(measuring(), figures) == 1
    said = capsys.readouterr()
    assert said.out == "clients_100_calls_each: 13.50\n"
    assert "the broker has gone" in said.err


async def _raise(error: Exception) -> None:
    raise error


def test_a_figure_that_is_wanted_and_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Or a bound that nobody looked at would count as met."""

    async def measuring() -> Mapping[str, float]:
        return {"growth_calls": 1.0}

    assert run(measuring(), wanted=["growth_calls", "growth_rss"]) == 1
    assert "not measured: growth_rss" in capsys.readouterr().err
    assert run(measuring(), wanted=["growth_calls"]) == 0


def test_a_bound_that_is_missed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of ten thousand clients, too."""

    async def measuring() -> Mapping[str, float]:
        return {"clients_10000_rss_mb": 151.0, "storm_token_requests": 51.0, "ratio_to_direct_c32": 0.5}

    assert run(measuring()) == 0
    assert capsys.readouterr().err.count("missed: ") == 3
