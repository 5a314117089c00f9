"""When to renew, and how long to wait after a failure. Pure: the time and the random number are passed in."""

import hashlib
from datetime import datetime, timedelta

RENEWALS_SPREAD = 0.1
"""A renewal may come early by up to this part of its token's life, so that clients do not renew together."""


def renewal_time(issued_at: datetime, expires_at: datetime, wanted_ttl: int, renew_before: int, key: str) -> datetime:
    """Return when the token is to be replaced: ``renew_before`` seconds ahead of its expiry or earlier.

    Where the API server shortened the token's life, ``renew_before`` shrinks in proportion, so that the token
    is not renewed all the time. ``key`` (any text that names the grant) spreads renewals evenly.
    """
    life = (expires_at - issued_at).total_seconds()
    ahead = lead_seconds(issued_at, expires_at, wanted_ttl, renew_before)
    early = (life - ahead) * RENEWALS_SPREAD * spread(key)
    return expires_at - timedelta(seconds=ahead + early)


def lead_seconds(issued_at: datetime, expires_at: datetime, wanted_ttl: int, renew_before: int) -> float:
    """Return how long before its expiry a token is replaced at the latest, in seconds."""
    life = (expires_at - issued_at).total_seconds()
    return renew_before * min(1.0, life / wanted_ttl)


def spread(key: str) -> float:
    """Return a number from 0 to 1 that is always the same for the same key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def backoff(attempt: int, random: float, *, first: float = 1.0, longest: float = 60.0) -> float:
    """Return the seconds to wait after failure number ``attempt`` (from 1): doubling, with full jitter.

    ``random`` is from 0 to 1; the wait is never below half of ``first``.
    """
    ceiling = min(longest, first * 2.0 ** min(attempt - 1, 30))
    return max(first / 2, ceiling * random)
