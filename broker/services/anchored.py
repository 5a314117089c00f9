"""Which grants have anchors that this process has made, or has found to be there.

A TokenClient's status lists them too, for the process that comes after this one. But whoever may write statuses can
wipe it, and whoever takes the finalizer off can delete it: what was seen once is ended all the same.
"""

from collections import defaultdict
from collections.abc import Iterable

from broker.model.anchor import Named
from broker.model.client import ClientId
from broker.model.former_grants import FormerGrant, GrantKey, grant_key


class AnchoredGrants:
    """Remembers grants by client, until they have ended."""

    def __init__(self) -> None:
        self._known: defaultdict[ClientId, set[GrantKey]] = defaultdict(set)

    def note(self, client_id: ClientId, uid: str, grant: Named) -> None:
        """Take note that a grant of the TokenClient with that UID has an anchor."""
        self._known[client_id].add(grant_key(uid, grant))

    def ended(self, client_id: ClientId, uid: str, grant: Named) -> None:
        """Take note that its anchors were deleted."""
        if client_id in self._known:
            self._known[client_id].discard(grant_key(uid, grant))

    def known(self, client_id: ClientId, uid: str, grant: Named) -> bool:
        """Tell whether a grant may have an anchor."""
        return grant_key(uid, grant) in self._known.get(client_id, ())

    def left(self, client_id: ClientId, uid: str = "", grants: Iterable[Named] = ()) -> dict[str, set[FormerGrant]]:
        """Return, by UID, the grants that a client has no more; without any to compare with, all of them."""
        now = {grant_key(uid, grant) for grant in grants}
        found: dict[str, set[FormerGrant]] = {}
        for of, grant in self._known.get(client_id, set()) - now:
            found.setdefault(of, set()).add(grant)
        return found

    def keep(self, client_id: ClientId, uid: str, grants: Iterable[Named]) -> None:
        """Forget all but these: another replica has ended the others, or will."""
        if client_id in self._known:
            self._known[client_id] &= {grant_key(uid, grant) for grant in grants}

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went, and whose tokens have ended."""
        self._known.pop(client_id, None)
