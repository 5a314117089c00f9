"""What a fault did to callers and how long it took to pass, for people and for docs/reliability.md."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.chaos.levels import Level


@dataclass(slots=True)
class Outcome:
    """One fault. Times are in seconds; ``healed`` counts from the fault's end, by what is asked for.

    ``seen`` are the answers to calls that began during the fault, ``slowest`` the longest time one of them took.
    """

    fault: str
    lasted: float = 0.0
    seen: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)
    healed: dict[str, float] = field(default_factory=dict)
    levels: list[tuple[Level, Level]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return it as some lines of text."""
        return [
            f"{self.fault}: lasted {self.lasted:.1f} s",
            *(f"  {what}: {_counts(counts)}; slowest {self.slowest[what]:.1f} s" for what, counts in self._told()),
            f"  well again after: {_times(self.healed)}",
            *(f"  holds {after}; before: {before}" for before, after in self.levels),
        ]

    def _told(self) -> list[tuple[str, Counter[str]]]:
        return sorted((what, counts) for what, counts in self.seen.items() if counts)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} x {outcome}" for outcome, number in sorted(counts.items()))


def _times(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{what} {value:.1f} s" for what, value in sorted(seconds.items()))
