"""What is read back from a TokenClient's status. Pure.

Names of grants, so that the tokens of those that went can be ended: anchors are called by them and by the TokenClient's
UID (:mod:`broker.model.anchor`). And for replicas that do not lead, the UIDs of the anchor and the account that the
leader has prepared a grant with. Both only narrow what is minted: the API server refuses an anchor or an account of
another UID (for a grant that nothing ends, of another account).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.model.anchor import Named


@dataclass(frozen=True, slots=True, order=True)
class FormerGrant:
    """A grant that a client had once, as far as the names of its anchors go."""

    name: str
    service_account: str


GrantKey = tuple[str, FormerGrant]
"""A TokenClient's UID, and a grant as far as its anchors' names go."""


@dataclass(frozen=True, slots=True)
class ListedAnchor:
    """What the leader says of a grant: the UIDs of its anchor, and of the account looked at; empty: not prepared.

    ``current`` tells whether it has seen the specification as it is now.
    """

    uid: str = ""
    account_uid: str = ""
    current: bool = True


def listed_anchor(status: Mapping[str, Any], generation: int, grant: Named) -> ListedAnchor | None:
    """Return what a status says of a grant; None where it says nothing of any, as those of files do."""
    if "grants" not in status:
        return None
    current = status.get("observedGeneration", 0) >= generation
    for listed in status["grants"]:
        if _former(listed) == former_grant(grant) and listed.get("anchorUID") and listed.get("accountUID"):
            return ListedAnchor(str(listed["anchorUID"]), str(listed["accountUID"]), current)
    return ListedAnchor(current=current)


def former_grant(grant: Named) -> FormerGrant:
    """Return a grant as far as the names of its anchors go."""
    return FormerGrant(grant.name, grant.service_account)


def grant_key(uid: str, grant: Named) -> GrantKey:
    """Return what tells a grant of the TokenClient with that UID from all others."""
    return uid, former_grant(grant)


def grants_left(status: Mapping[str, Any], grants: Iterable[Named]) -> tuple[FormerGrant, ...]:
    """Return the grants that a status lists and that are not there any more, or are for another account now."""
    now = set(map(former_grant, grants))
    return tuple(former for former in _listed(status) if former not in now)


def unlisted(status: Mapping[str, Any], grants: Iterable[Named]) -> bool:
    """Tell whether a grant is not in a status, as it is now: then a broker that starts anew would not know of it."""
    return not set(map(former_grant, grants)) <= set(_listed(status))


def _listed(status: Mapping[str, Any]) -> list[FormerGrant]:
    return [_former(listed) for listed in status.get("grants", ())]


def _former(listed: Mapping[str, Any]) -> FormerGrant:
    return FormerGrant(str(listed.get("name")), str(listed.get("subject", "")).rpartition(":")[2])
