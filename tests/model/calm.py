"""When a replica could have done all that a leader does: whatever the others met, nothing was in its way."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Period:
    """From when to when, in seconds."""

    since: float
    until: float


@dataclass(slots=True)
class Calm:
    """Periods in which one and the same replica reached both neighbours, and no call of anybody's met a fault."""

    periods: list[Period] = field(default_factory=list)
    _now: dict[str, Period] = field(default_factory=dict)

    def look(self, now: float, able: Iterable[str], hit_at: float) -> None:
        """Take note of who is able, and when a call met a fault last."""
        before, self._now = self._now, {}
        for name in able:
            period = before.get(name)
            if period is None or period.since < hit_at:
                period = Period(now if period is None else hit_at, now)
                self.periods.append(period)
            period.until = now
            self._now[name] = period

    def lasted(self, since: float, until: float) -> float:
        """Return how much of the longest one lies between two moments."""
        return max((min(it.until, until) - max(it.since, since) for it in self.periods), default=0.0)
