"""Which grants a TokenClient's status lists, so that the tokens of those that went can be ended. Pure.

Names are all that is read back from a status, and only for that: anchors are called by them and by the TokenClient's
UID (:mod:`broker.model.anchor`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.model.anchor import Named


@dataclass(frozen=True, slots=True)
class FormerGrant:
    """A grant that a client had once, as far as the names of its anchors go."""

    name: str
    service_account: str


def grants_left(status: Mapping[str, Any], grants: Iterable[Named]) -> tuple[FormerGrant, ...]:
    """Return the grants that a status lists and that are not there any more, or are for another account now."""
    now = _names(grants)
    return tuple(former for former in _listed(status) if (former.name, former.service_account) not in now)


def unlisted(status: Mapping[str, Any], grants: Iterable[Named]) -> bool:
    """Tell whether a grant is not in a status, as it is now: then a broker that starts anew would not know of it."""
    return not _names(grants) <= _names(_listed(status))


def _names(grants: Iterable[Named]) -> set[tuple[str, str]]:
    return {(grant.name, grant.service_account) for grant in grants}


def _listed(status: Mapping[str, Any]) -> list[FormerGrant]:
    return [_former(listed) for listed in status.get("grants", ())]


def _former(listed: Mapping[str, Any]) -> FormerGrant:
    return FormerGrant(str(listed.get("name")), str(listed.get("subject", "")).rpartition(":")[2])
