"""Whether memory, file descriptors or tasks grow: the slope over all samples, for one sample tells nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression

from tests.support.chaos.levels import Level

WARM_SHARE = 0.25
"""This part of the time is the warm-up, which does not count: pools fill, and libraries are loaded."""

MOST_MB, MOST_DESCRIPTORS, MOST_TASKS = 6.0, 32.0, 16.0
"""By how much a process may have grown in the end, by the slope of all samples.

Pools breathe: a broker that takes the lead opens some 20 connections, and keeps them for two minutes.
"""

SAMPLES = 8
"""Of fewer nothing can be said."""


@dataclass(slots=True)
class Trend:
    """What one process held, sampled between faults. Times are seconds of any clock."""

    samples: list[tuple[float, Level]] = field(default_factory=list)

    def note(self, at: float, level: Level) -> None:
        """Keep a sample."""
        self.samples.append((at, level))

    def grown(self) -> dict[str, float]:
        """Return by how much each has grown after the warm-up; nothing for want of samples."""
        warm = self._warm()
        if len(warm) < SAMPLES:
            return {}
        return {what: _growth([(at, of(level)) for at, level in warm]) for what, (of, _) in _WATCHED.items()}

    def violations(self) -> Iterator[str]:
        """Tell what has grown by more than it may, or that nobody can tell."""
        grown = self.grown()
        if not grown:
            yield f"{len(self._warm())} samples are too few to tell what grows: soak longer"
        for what, growth in grown.items():
            if growth > _WATCHED[what][1]:
                yield f"{what} grew by {growth:.1f}"

    def lines(self) -> Iterator[str]:
        """Tell the level after the warm-up, at the end, and the slope."""
        warm = self._warm()
        if not warm:
            return
        (began, first), (ended, last) = warm[0], warm[-1]
        hours = max(1.0, ended - began) / 3600
        yield f"after the warm-up: {first}; at the end: {last}; {len(warm)} samples in {ended - began:.0f} s"
        for what, growth in self.grown().items():
            yield f"{what}: {growth:+.1f} by the slope of all samples ({growth / hours:+.1f} an hour)"

    def _warm(self) -> Sequence[tuple[float, Level]]:
        if not self.samples:
            return []
        began, ended = self.samples[0][0], self.samples[-1][0]
        return [one for one in self.samples if one[0] >= began + WARM_SHARE * (ended - began)]


def _growth(points: Sequence[tuple[float, float]]) -> float:
    times, values = zip(*points, strict=True)
    return float(linear_regression(times, values).slope * (times[-1] - times[0]))


_WATCHED: dict[str, tuple[Callable[[Level], float], float]] = {
    "megabytes": (lambda level: level.megabytes, MOST_MB),
    "descriptors": (lambda level: float(level.descriptors), MOST_DESCRIPTORS),
    "tasks": (lambda level: float(level.tasks), MOST_TASKS),
}
