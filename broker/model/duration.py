"""Durations as Kubernetes resources write them (``15m``, ``1h30m``, ``600s``), and as servers ask callers to wait."""

import re

_PATTERN = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", re.ASCII)
_DELAY = re.compile(r"\d{1,5}", re.ASCII)
_LONGEST_DELAY_SECONDS = 60


def parse_duration(text: str) -> int:
    """Return the seconds of a duration such as ``1h30m``.

    Raises ValueError for anything else: no fractions, no signs, no spaces, no bare numbers, nothing empty.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text[:40]!r} is not a duration such as 15m, 1h30m or 600s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def format_duration(seconds: int) -> str:
    """Return the shortest text that :func:`parse_duration` reads back: 5400 becomes ``1h30m``."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{value}{unit}" for value, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if value]
    return "".join(parts) or "0s"


def retry_after_seconds(value: str) -> int | None:
    """Return what a Retry-After header asks for, a minute at most; None for a date or nonsense (RFC 9110, 10.2.3)."""
    return min(int(value), _LONGEST_DELAY_SECONDS) if _DELAY.fullmatch(value) else None
