"""How many tokens a client may be handed out. Pure."""

from dataclasses import dataclass
from typing import Self

MAX_PER_MINUTE = 100_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many tokens a minute on the average, of which ``burst`` can be had at once."""

    per_minute: int
    burst: int

    @classmethod
    def of(cls, per_minute: int, burst: int | None) -> Self:
        """Return the rate that is written so: where ``burst`` is left out, as many at once as in a minute."""
        return cls(per_minute, burst or per_minute)

    @property
    def per_second(self) -> float:
        """How fast tokens come back."""
        return self.per_minute / 60

    def within(self, bound: Self | None) -> "Rate":
        """Return the rate that is left of it where somebody else sets a bound, too."""
        if bound is None:
            return self
        return Rate(min(self.per_minute, bound.per_minute), min(self.burst, bound.burst))

    def __str__(self) -> str:
        return f"{self.per_minute} tokens a minute, {self.burst} at once"


def effective(own: Rate | None, bound: Rate | None) -> Rate | None:
    """Return what holds for a client with a rate of its own, or none, where the operator has one, or none."""
    return bound if own is None else own.within(bound)
