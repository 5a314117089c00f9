"""What has to end of a client: what is owed from before, what it has no more, and all where it may have nothing."""

from dataclasses import dataclass

from broker.model.anchor import Named
from broker.model.client import Client, ClientId
from broker.model.decision import Denied
from broker.model.former_grants import FormerGrant, former_grant, grants_left
from broker.ports import Registration
from broker.services.anchored import AnchoredGrants
from broker.services.ending import Ender, NotEnded


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of it: what has not ended, and the grants of the client's own past that have."""

    not_ended: list[NotEnded]
    former: frozenset[FormerGrant] = frozenset()


class Overdue:
    """Finds it in the status, which outlives the process, and in what this process remembers; and ends it."""

    def __init__(self, ender: Ender, anchored: AnchoredGrants) -> None:
        self._ender = ender
        self._anchored = anchored

    def left(self, registration: Registration) -> dict[str, set[FormerGrant]]:
        """Return, by the TokenClient's UID, the grants that are not there any more and may have tokens."""
        now = registration.client.grants if registration.client is not None else ()
        left = self._anchored.left(registration.id, registration.uid, now)
        listed = grants_left(registration.status, now)
        if listed:
            left.setdefault(registration.uid, set()).update(listed)
        return left

    def note(self, registration: Registration, denied: Denied | None) -> set[str]:
        """Take note of what has to end by a change: the next one may take it back before there was time for it.

        Returns the names of all grants that are owed: what is issued for them now would end as well.
        """
        client = registration.client
        if client is not None and denied is not None:
            self._ender.owe(client.id, client.uid, client.grants, str(denied.reason))
        if client is not None or registration.suspended:
            for uid, grants in self.left(registration).items():
                self._ender.owe(registration.id, uid, grants, "grant_removed" if client else "client_suspended")
        return {grant.name for _, grant in self._ender.owed(registration.id)}

    def follow(self, registration: Registration, client: Client) -> None:
        """Remember nothing that the leader has ended: its status lists what it has not."""
        listed: list[Named] = [*client.grants, *grants_left(registration.status, client.grants)]
        self._anchored.keep(client.id, client.uid, listed)

    async def pay(self, client_id: ClientId) -> list[NotEnded]:
        """End what is owed and nothing else."""
        return await self._ender.pay(client_id)

    async def end_removed(self, client_id: ClientId) -> list[NotEnded]:
        """End all tokens of a client that is gone."""
        return await self._end(client_id, self._anchored.left(client_id), "client_removed")

    async def end_all(self, registration: Registration, why: str) -> list[NotEnded]:
        """End all tokens of a client that is there."""
        now = registration.client.grants if registration.client is not None else ()
        of = self.left(registration)
        of.setdefault(registration.uid, set()).update(map(former_grant, now))
        return await self._end(registration.id, of, why)

    async def end_over(self, registration: Registration, client: Client, denied: Denied | None) -> Ended:
        """End the tokens of grants that a client has no more, and of all where it may have none. All are tried."""
        left = self.left(registration)
        if denied is not None:
            self._ender.owe(client.id, client.uid, client.grants, str(denied.reason))
        not_ended = await self._end(client.id, left, "grant_removed")
        failed = {(it.uid, it.grant) for it in not_ended}
        ended = {grant for grant in left.get(client.uid, ()) if (client.uid, grant) not in failed}
        return Ended(not_ended, frozenset(ended))

    async def _end(self, client_id: ClientId, of: dict[str, set[FormerGrant]], why: str) -> list[NotEnded]:
        """End what is owed, and grants by UID."""
        for uid, grants in of.items():
            self._ender.owe(client_id, uid, sorted(grants), why)
        return await self._ender.pay(client_id)
