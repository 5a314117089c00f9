"""Times as people read them: ``in 8m``, ``3d ago``. Pure: the present is passed in."""

from datetime import UTC, datetime

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time as Kubernetes writes it. Raises ValueError."""
    return datetime.fromisoformat(text)


def span(seconds: float) -> str:
    """Return a length of time in one unit, or two where one alone is coarse: ``90s`` is ``1m30s``."""
    rest = max(0, int(seconds))
    for position, (size, unit) in enumerate(_UNITS):
        if rest >= size:
            count, below = divmod(rest, size)
            smaller = _UNITS[position + 1] if position + 1 < len(_UNITS) else None
            second = f"{below // smaller[0]}{smaller[1]}" if smaller and below // smaller[0] else ""
            return f"{count}{unit}" + (second if count < 10 else "")  # noqa: PLR2004 - 12d needs no hours
    return "0s"


def relative(moment: datetime, now: datetime) -> str:
    """Return how far a time lies ahead or back: ``in 14m30s`` or ``2h ago``."""
    ahead = (moment - now).total_seconds()
    return f"in {span(ahead)}" if ahead > 0 else f"{span(-ahead)} ago"


def both(moment: datetime, now: datetime) -> str:
    """Return a time in full and how far away it is: ``2026-11-24 09:00:00 UTC (in 14m)``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({relative(moment, now)})"
