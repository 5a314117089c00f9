"""Clocks that are compared by the Date headers of servers. Pure."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.times import span

TOLERATED_SECONDS = 10
"""A Date header has whole seconds, and the answer was under way; Kubernetes itself forgives a minute at most."""

_SET_CLOCK = "timedatectl set-ntp true   # on the machine whose clock is wrong"


def server_time(header: str) -> datetime | None:
    """Return the time of a Date header (RFC 9110, 6.6.1), or None where there is none."""
    try:
        return parsedate_to_datetime(header).astimezone(UTC)
    except ValueError:
        return None


def clocks(here: datetime, there: Mapping[str, datetime | None]) -> Iterator[Finding]:
    """Compare this machine's clock with those of servers, each by its name."""
    for name, time in there.items():
        yield _clock(f"clock.{name.replace(' ', '-').lower()}", name, here, time)


def _clock(identity: str, name: str, here: datetime, there: datetime | None) -> Finding:
    if there is None:
        return unknown(identity, f"the {name} did not say what time it has")
    ahead = (here - there).total_seconds()
    if abs(ahead) <= TOLERATED_SECONDS:
        return ok(identity, f"this machine and the {name} have the same time")
    direction = "ahead of" if ahead > 0 else "behind"
    return problem(identity, f"this machine's clock is {span(abs(ahead))} {direction} that of the {name}", _SET_CLOCK)
