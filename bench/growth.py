"""What a number of clients costs, and whether each costs more where there are more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

HEAD = (
    "clients",
    "first look, s",
    "calls a client",
    "started again, s",
    "MB then",
    "MB when all were looked at",
    "follower: calls of its start",
    "calls a minute",
    "MB",
)


@dataclass(frozen=True, slots=True)
class Followed:
    """What a replica costs that follows another one; see :mod:`bench.follower`."""

    start_calls: int
    """Requests that it made of the API server until it was ready."""
    calls_a_minute: float
    """As many a minute after that."""
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Grown:
    """What so many clients cost; see :mod:`bench.scale`."""

    first_look_seconds: float
    calls: float
    """Requests that the API server answered, a client."""
    sync_seconds: float
    rss_mb: float
    settled_rss_mb: float
    change_seconds: float
    followed: Followed | None = None
    """None while no follower was measured."""

    def figures(self, size: int) -> dict[str, float]:
        """Return by name what is compared between numbers of clients; ``size`` is how many these are."""
        figures = looked_at(size, self.first_look_seconds, self.calls)
        figures |= started_again(size, self.sync_seconds, self.rss_mb)
        figures |= {f"clients_{size}_settled_rss_mb": self.settled_rss_mb}
        if self.followed is None:
            return figures
        return figures | {
            f"follower_start_calls_{size}": self.followed.start_calls,
            f"follower_calls_a_minute_{size}": self.followed.calls_a_minute,
            f"follower_rss_mb_{size}": self.followed.rss_mb,
        }


def looked_at(size: int, first_look_seconds: float, calls: float) -> dict[str, float]:
    """Return by name what the first look cost: in all, and in calls a client."""
    return {f"clients_{size}_first_look_seconds": first_look_seconds, f"clients_{size}_calls_each": calls}


def started_again(size: int, sync_seconds: float, rss_mb: float) -> dict[str, float]:
    """Return by name what a start cost, until all were known."""
    return {f"clients_{size}_sync_seconds": sync_seconds, f"clients_{size}_rss_mb": rss_mb}


def growth(costs: Mapping[int, Grown]) -> dict[str, float]:
    """Return what the largest number of clients costs over what the one before costs, each client by itself.

    1 is linear growth. ``costs`` is by number of clients; with less than three numbers nothing is returned. Memory and
    the time of a start are what is added to those with the smallest number: the program itself is no client's. Where
    nothing was added before, the figure is left out. The calls of a follower are compared as they are: 1 is none more.
    """
    if len(costs) < 3:
        return {}
    least, *_, before, most = sorted(costs)

    def added(of: Callable[[Grown], float], size: int) -> float:
        return (of(costs[size]) - of(costs[least])) / (size - least)

    pairs = {
        "growth_first_look": (costs[most].first_look_seconds / most, costs[before].first_look_seconds / before),
        "growth_calls": (costs[most].calls, costs[before].calls),
        "growth_sync": (added(_sync, most), added(_sync, before)),
        "growth_rss": (added(_settled, most), added(_settled, before)),
        "growth_follower_calls": (_following(costs[most]).calls_a_minute, _following(costs[before]).calls_a_minute),
        "growth_follower_rss": (added(_follower_rss, most), added(_follower_rss, before)),
    }
    return {name: round(more / less, 2) for name, (more, less) in pairs.items() if less > 0}


def table(costs: Mapping[int, Grown]) -> list[str]:
    """Return a table in Markdown, a row for each number of clients."""
    rows = [(str(size), *(f"{value:g}" for value in costs[size].figures(size).values())) for size in sorted(costs)]
    return [_line(HEAD), "|---:" * len(HEAD) + "|", *map(_line, rows)]


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _sync(cost: Grown) -> float:
    return cost.sync_seconds


def _settled(cost: Grown) -> float:
    return cost.settled_rss_mb


def _follower_rss(cost: Grown) -> float:
    return _following(cost).rss_mb


def _following(cost: Grown) -> Followed:
    return cost.followed or Followed(0, 0.0, 0.0)
