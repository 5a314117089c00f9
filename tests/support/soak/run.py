"""A soak: two replicas on real servers, everything at once, one fault after the other, and what is told in the end."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from broker.services.token_anchors import BUCKET_SECONDS, MAX_TOKENS
from tests.support.chaos.ledger import NO_ANSWER, Ledger
from tests.support.chaos.levels import Level
from tests.support.chaos.load import running
from tests.support.chaos.report import Outcome
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import SINGLE
from tests.support.lab import Lab
from tests.support.processes import ProgramError, until
from tests.support.soak.churn import Cycle, counted, cycles
from tests.support.soak.faults import FAULTS, Strike, drawn
from tests.support.soak.ground import Ground
from tests.support.soak.trend import Trend

PAUSE_SECONDS = (3.0, 6.0)
"""Between two faults; in it, memory, descriptors and tasks are sampled."""

WARM_SECONDS = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a soak takes, in seconds, and what it draws: with the same seed the same, in the same order."""

    seconds: float
    seed: int
    faults: Mapping[str, Strike] = field(default_factory=lambda: FAULTS)
    name: str = "soak"
    """Of the namespace and the Lease: a DNS label."""

    @property
    def single_pause(self) -> float:
        """Seconds between tokens with an end of their own: each replica makes so many of a grant in six hours."""
        return max(0.8, min(self.seconds, BUCKET_SECONDS) / (1.5 * MAX_TOKENS))


@dataclass(slots=True)
class Report:
    """What came of it."""

    plan: Plan
    struck: Counter[str] = field(default_factory=Counter)
    healed: dict[str, float] = field(default_factory=dict)
    """By fault: the longest time until all was well again, in seconds."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind and outcome."""
    cycles: list[Cycle] = field(default_factory=list)
    trend: Trend = field(default_factory=Trend)
    """Of the broker that no fault ends."""
    checks: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """Return the exit code."""
        return 1 if self.violations else 0

    def lines(self) -> Iterator[str]:
        """Tell it all."""
        yield f"seed {self.plan.seed}: {sum(self.struck.values())} faults, all invariants checked {self.checks} times"
        for fault, times in sorted(self.struck.items()):
            yield f"  {fault}: {times} times; well again after {self.healed.get(fault, 0.0):.1f} s at most"
        for what, outcomes in sorted(self._kinds().items()):
            yield f"  {what}: " + ", ".join(f"{number} x {outcome}" for outcome, number in sorted(outcomes.items()))
        yield from (f"  {line}" for line in counted(self.cycles))
        yield from (f"  the broker that no fault ends, {line}" for line in self.trend.lines())
        yield f"{len(self.violations)} violated invariants"
        yield from (f"  VIOLATED: {violation}" for violation in self.violations)

    def _kinds(self) -> dict[str, dict[str, int]]:
        kinds: dict[str, dict[str, int]] = {}
        for (what, outcome), number in self.calls.items():
            kinds.setdefault(what, {})[outcome] = number
        return kinds

    def relieve(self, ledger: Ledger) -> None:
        """Take calls over from a ledger that is looked through again and again, but those that explain anchors."""
        kept = [call for call in ledger.calls if (call.what, call.outcome) == (SINGLE, NO_ANSWER)]
        self.calls.update((call.what, call.outcome) for call in ledger.calls)
        self.calls.subtract((call.what, call.outcome) for call in kept)
        ledger.calls[:] = kept

    def count(self, ledger: Ledger) -> None:
        """Take over what callers and readers saw, and what must not have happened."""
        self.calls.update((call.what, call.outcome) for call in ledger.calls)
        self.violations += [one for one in dict.fromkeys(ledger.taken_violations()) if one not in self.violations]


async def soak(lab: Lab, plan: Plan, say: Say) -> Report:
    """Soak two replicas in a lab that has the release's manifests; ends early where an invariant is violated."""
    say(f"seed {plan.seed}")
    report, dice = Report(plan), random.Random(plan.seed)  # noqa: S311 - it has to draw the same again
    try:
        async with Scene.start(lab, plan.name, replicas=2, proxied=True) as scene:
            await _play(scene, report, dice, say)
    except (AssertionError, ProgramError) as broken:
        report.violations.append(f"at the start or in the end: {broken}")
    return report


async def _play(scene: Scene, report: Report, dice: random.Random, say: Say) -> None:
    plan = report.plan
    next(caller for caller in scene.callers if caller.what == SINGLE).pause = plan.single_pause
    async with Ground.open(scene, f"{plan.name}-guests", random.Random(plan.seed)) as ground:  # noqa: S311 - as above
        report.cycles = await cycles(ground, 4 * plan.single_pause)
        async with running(report.cycles):
            await until(partial(_warm, scene, report), what="each cycle was gone through once", seconds=WARM_SECONDS)
            await _strike_on(scene, report, dice, say)
    report.count(scene.ledger)
    if not report.violations:
        report.violations += report.trend.violations()


async def _warm(scene: Scene, report: Report) -> bool:
    return all(cycle.took for cycle in report.cycles) or bool(scene.ledger.violations)


async def _strike_on(scene: Scene, report: Report, dice: random.Random, say: Say) -> None:
    """Let one fault follow the other until the time is over, or something was violated."""
    began = scene.now
    end = began + report.plan.seconds
    for name in drawn(report.plan.faults, dice):
        await _rest(scene, report, dice.uniform(*PAUSE_SECONDS))
        if report.violations or scene.ledger.violations or scene.now >= end:
            return
        violation = await _strike(scene, report, name, dice)
        report.violations += [violation] if violation else []
        say(f"{scene.now - began:6.0f} s  {_told(scene.outcome, violation)}; {report.trend.samples[-1][1]}")
        if violation:
            return
        report.relieve(scene.ledger)


async def _strike(scene: Scene, report: Report, name: str, dice: random.Random) -> str:
    """Let a fault happen, and check all invariants; return what is violated, or nothing."""
    report.struck[name] += 1
    try:
        async with scene.fault(name):
            await report.plan.faults[name](scene, dice)
        healed = (await scene.healed(levels=False)).healed
    except (AssertionError, ProgramError) as broken:
        return f"after {name}: {broken}"
    report.checks += 1
    report.healed[name] = max(report.healed.get(name, 0.0), *healed.values())
    return ""


async def _rest(scene: Scene, report: Report, seconds: float) -> None:
    """Let things be for a while, and sample what the second broker holds."""
    end = scene.now + seconds
    while scene.now < end:
        report.trend.note(scene.now, await Level.of(scene.brokers[1]))
        await asyncio.sleep(1.0)


def _told(outcome: Outcome, violation: str) -> str:
    what, longest = max(outcome.healed.items(), key=lambda one: one[1], default=("nothing", 0.0))
    well = f"VIOLATED: {violation}" if violation else f"well again after {longest:.1f} s ({what})"
    return f"{outcome.fault}: lasted {outcome.lasted:.1f} s; {well}"


def keep_logs(lab: Lab, folder: Path) -> None:
    """Copy what all programs said, and the audit logs: no token is in any of them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in [*lab.folder.glob("*.log"), *lab.folder.glob("*/audit.jsonl")]:
        shutil.copy(file, folder / (file.name if file.suffix == ".log" else f"{file.parent.name}-{file.name}"))
