"""Times as Kubernetes writes them."""

from datetime import datetime


def timestamp(moment: datetime) -> str:
    """Return a UTC time to the second (RFC 3339)."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
