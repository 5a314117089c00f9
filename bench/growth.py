"""What a number of clients costs, and whether each costs more where there are more."""

from collections.abc import Mapping
from dataclasses import dataclass


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


def growth(costs: Mapping[int, Grown]) -> dict[str, float]:
    """Return what a client costs with the largest number of them over what it costs with the one before.

    1 is linear growth. ``costs`` is by number of clients; with less than three numbers nothing is returned. Memory is
    what is added to that with the smallest number: the program itself is no client's.
    """
    if len(costs) < 3:
        return {}
    least, *_, before, most = sorted(costs)

    def added(size: int) -> float:
        return (costs[size].settled_rss_mb - costs[least].settled_rss_mb) / (size - least)

    looks = costs[most].first_look_seconds / most, costs[before].first_look_seconds / before
    return {
        "growth_first_look": round(looks[0] / looks[1], 2),
        "growth_calls": round(costs[most].calls / costs[before].calls, 2),
        "growth_rss": round(added(most) / added(before), 2),
    }
