"""What a soak draws, measures and tells."""

import asyncio
import itertools
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.broker import ROOT
from tests.support.chaos.ledger import NO_ANSWER, Call, Ledger
from tests.support.chaos.levels import Level
from tests.support.chaos.setting import ISSUE, SINGLE
from tests.support.soak import ground as grounds
from tests.support.soak.__main__ import MINUTES, MOST_MINUTES, planned
from tests.support.soak.churn import Cycle
from tests.support.soak.faults import FAULTS, drawn
from tests.support.soak.ground import BrokenPromise, Ground, comes
from tests.support.soak.run import Plan, Report
from tests.support.soak.trend import MOST_DESCRIPTORS, MOST_MB, MOST_TASKS, SAMPLES, Trend

HOUR = 3600


def trend(level: Callable[[float], Level], samples: int = 200) -> Trend:
    """Return a trend of an hour; ``level`` is told which part of it is over."""
    made = Trend()
    for number in range(samples):
        made.note(100 + number * HOUR / samples, level(number / samples))
    return made


def noise(part: float) -> float:
    """Return what goes up and down, by one."""
    return float(int(part * 1000) % 2)


@pytest.mark.parametrize(
    ("level", "grows"),
    [
        (lambda part: Level(80 + 8 * noise(part), 20 + int(8 * noise(part)), 50), []),
        (lambda part: Level(80 + 40 * (part < 0.2), 60 - int(40 * part), 50), []),
        (lambda part: Level(40 + 40 * min(1, part / 0.2), 20, 50), []),
        (lambda part: Level(80 + 3 * MOST_MB * part + noise(part), 20, 50), ["megabytes"]),
        (lambda part: Level(80, 20 + int(3 * MOST_DESCRIPTORS * part), 50), ["descriptors"]),
        (lambda part: Level(80, 20, 50 + int(3 * MOST_TASKS * part)), ["tasks"]),
    ],
    ids=["up and down", "shrinks", "grows while it warms up", "memory", "descriptors", "tasks"],
)
def test_what_grows_is_told(level: Callable[[float], Level], grows: list[str]) -> None:
    """The slope counts; neither one sample nor the warm-up does."""
    assert [one.partition(" ")[0] for one in trend(level).violations()] == grows


def test_one_high_sample_is_no_growth() -> None:
    """Also where it is the last one."""
    made = trend(lambda _part: Level(80, 20, 50))
    made.note(100 + HOUR, Level(80 + 2 * MOST_MB, 20 + 2 * int(MOST_DESCRIPTORS), 50 + 2 * int(MOST_TASKS)))

    assert [*made.violations()] == []


def test_too_few_samples_are_a_violation() -> None:
    """A soak that could not tell has not passed."""
    assert [*trend(lambda _part: Level(80, 20, 50), SAMPLES).violations()] == [
        f"{SAMPLES * 3 // 4} samples are too few to tell what grows: soak longer"
    ]
    assert [*Trend().lines()] == []


def test_same_seed_draws_the_same_and_every_fault_comes() -> None:
    """None comes again before all have come."""
    one, two, other = (
        [*itertools.islice(drawn(FAULTS, random.Random(seed)), 2 * len(FAULTS))]  # noqa: S311 - no secret
        for seed in (1, 1, 2)
    )

    assert one == two != other
    assert {*one[: len(FAULTS)]} == {*one[len(FAULTS) :]} == {*FAULTS}


def test_command_line_is_read() -> None:
    """Without a seed, one is drawn."""
    plan, drawn_one = planned(["--minutes", "2", "--seed", "7"]), planned([])

    assert (plan.seconds, plan.seed) == (120, 7)
    assert drawn_one.seconds == MINUTES * 60
    assert len({planned([]).seed for _ in range(8)}) > 1


@pytest.mark.parametrize("minutes", ["0", "-1", str(MOST_MINUTES + 1)])
def test_time_that_cannot_be_is_refused(minutes: str) -> None:
    """A soak of no time would pass; after a day and a half old anchors are gone, and nobody could tell why."""
    with pytest.raises(SystemExit):
        planned(["--minutes", minutes])


def test_make_passes_minutes_and_seed_on() -> None:
    """Ten minutes where nobody says otherwise."""
    told = [
        subprocess.run(["make", "-n", "soak", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for words in (["MINUTES=3", "SOAK_SEED=5"], [])
    ]

    assert "-m tests.support.soak --minutes 3 --seed 5\n" in told[0]
    assert f"-m tests.support.soak --minutes {MINUTES:.0f} \n" in told[1]


@pytest.mark.parametrize("minutes", [1, 10, 60, 24 * 60])
def test_tokens_are_as_many_as_the_broker_makes(minutes: float) -> None:
    """Each of two replicas makes 1,000 of a grant in six hours; three calls fit into what a fault may take to heal."""
    pause = Plan(minutes * 60, 1).single_pause

    assert min(minutes * 60, 6 * HOUR) / pause / 2 < 800
    assert 0.8 <= pause < 20


def test_report_fails_where_something_was_violated() -> None:
    """Each violation is told once."""
    report, ledger = Report(Plan(60, 7)), Ledger()
    well = report.code
    ledger.violations += ["a", "b", "a"]
    report.violations += ["b"]
    report.count(ledger)

    assert (well, report.code) == (0, 1)
    assert [*report.lines()][-3:] == ["2 violated invariants", "  VIOLATED: b", "  VIOLATED: a"]


def test_ledger_does_not_grow_and_calls_are_counted_once() -> None:
    """But for callers of single tokens who got no answer: they may have left an anchor."""
    report, ledger = Report(Plan(60, 7)), Ledger()
    seen = [(ISSUE, "200"), (SINGLE, "200"), (SINGLE, NO_ANSWER), (ISSUE, NO_ANSWER)]
    for _ in range(2):
        ledger.calls += [Call(what, 0.0, 1.0, outcome) for what, outcome in seen]
        report.relieve(ledger)
    kept = [(call.what, call.outcome) for call in ledger.calls]
    report.count(ledger)

    assert kept == [(SINGLE, NO_ANSWER)] * 2
    assert report.calls == dict.fromkeys(seen, 2)


@dataclass
class Place:
    """Stands for the scene and its API server, for which each look at a token takes a second."""

    works: int
    """So many looks find it working."""
    now: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def lab(self) -> Any:
        """Return itself as the cluster of a lab."""
        return SimpleNamespace(cluster=self)

    async def request(self, *_call: Any, **_more: Any) -> tuple[int, dict[str, Any]]:
        """Say whether a token works."""
        self.now += 1.0
        self.works -= 1
        return (201 if self.works >= 0 else 401), {}


def ground(place: Place) -> Ground:
    """Return a ground there."""
    return Ground(place, None, random.Random(1))  # type: ignore[arg-type] # noqa: S311 - no secret


async def test_token_that_works_too_long_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, it does not."""
    monkeypatch.setattr(grounds, "POLL_SECONDS", 0.0)
    await ground(Place(works=3)).die(["x"], "revoked", within=5)

    with pytest.raises(BrokenPromise, match="revoked: a token works 6 s later"):
        await ground(Place(works=9)).die(["x"], "revoked", within=5)


async def test_broken_promise_is_a_violation() -> None:
    """What did not come about is told, with whose it was, and the cycle goes on."""
    place, stop = Place(works=0), asyncio.Event()
    outcomes = iter([BrokenPromise("no end"), None])

    async def once(_ground: Ground) -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome
        stop.set()

    cycle = Cycle("revoking", once, ground(place), pause=0.0)
    await cycle.run(stop)

    assert place.ledger.violations == ["revoking: no end"]
    assert len(cycle.took) == 1


async def test_what_does_not_come_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a server fails meanwhile."""
    monkeypatch.setattr(grounds, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(grounds, "POLL_SECONDS", 0.01)

    async def fails() -> bool:
        raise TimeoutError

    with pytest.raises(BrokenPromise, match="it is there"):
        await comes(fails, "it is there")
