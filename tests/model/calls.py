"""Each call that a broker makes of its neighbours, by the name that a fault is armed by: all that its ports have."""

import inspect

from broker.ports import (
    Anchors,
    AuditLog,
    EventRecorder,
    Finalizers,
    LeadRecorder,
    LeaseStore,
    Minter,
    Reviewer,
    StatusWriter,
    VaultStore,
)
from broker.services.verify import AccessReviews

PROTOCOLS: dict[str, type] = {
    "access": AccessReviews,
    "anchors": Anchors,
    "audit": AuditLog,
    "events": EventRecorder,
    "finalizers": Finalizers,
    "lead": LeadRecorder,
    "lease": LeaseStore,
    "minter": Minter,
    "reviewer": Reviewer,
    "statuses": StatusWriter,
    "vault": VaultStore,
}

NEVER = {
    "access.allowed": "the rules of the model's accounts leave nothing in doubt",
    "reviewer.inspect": "nobody introspects tokens, nor revokes one by itself instead of its id",
    "reviewer.review": "requests are made of the services by clients whose proofs were judged before",
}
"""Calls that are not made in these histories, and why; whoever makes one all the same fails."""

MORE = ("anchors.ensure root", "anchors.find root", "list")
"""The anchor above a copy's versions has names of its own; lists begin what registries follow."""


def calls_of(prefix: str, protocol: type) -> list[str]:
    """Return the calls of a port."""
    return [f"{prefix}.{name}" for name, _ in inspect.getmembers(protocol, inspect.isfunction) if name[0] != "_"]


PORTS = (
    tuple(call for prefix, protocol in PROTOCOLS.items() for call in calls_of(prefix, protocol) if call not in NEVER)
    + MORE
)
"""What a fault can be armed at."""
