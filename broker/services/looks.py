"""What is remembered of looks at accounts, by namespace, client and grant."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.model.client import Client, Grant
from broker.model.limits import NamespaceLimits
from broker.services.storms.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class Look:
    """As what a grant's account was looked at, how many questions that took, and when, by the monotonic clock."""

    client: Client
    limits: NamespaceLimits
    questions: int
    at: float


@dataclass(slots=True)
class Known:
    """What is remembered of a client, by grant; ``turn`` is when it may be looked at again, where it has to wait."""

    looks: dict[str, Look] = field(default_factory=dict)
    strong: dict[str, tuple[float, str, tuple[str, ...]]] = field(default_factory=dict)
    turn: float | None = None
    wanted_at: float = float("-inf")

    def of(self, client: Client, limits: NamespaceLimits, grants: Iterable[Grant]) -> list[Look]:
        """Return the looks at grants as they stand now; at others there was none since they, or limits, changed."""
        looks = (self.looks.get(grant.name) for grant in grants)
        return [look for look in looks if look and (look.client, look.limits) == (client, limits)]


@dataclass(slots=True)
class Namespace:
    """What is remembered of a namespace: a rate of its own, which no other waits for, and its clients, by name."""

    bucket: TokenBucket
    clients: defaultdict[str, Known] = field(default_factory=lambda: defaultdict(Known))
