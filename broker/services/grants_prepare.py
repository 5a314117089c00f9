"""Make all grants of a client ready, each by itself: what stands in the way of one holds up no other."""

from collections.abc import Callable

from broker.errors import BrokerError, Fault
from broker.model.client import Client, ClientId, Grant
from broker.model.former_grants import ListedAnchor, listed_anchor, unlisted
from broker.model.prepared import Prepared
from broker.model.status import AccessFacts
from broker.ports import Finalizers, Leader, Registration
from broker.services.board import StatusBoard
from broker.services.ending import NotEnded
from broker.services.grant_book import GrantBook
from broker.services.prepare import Preparer


class GrantsPreparer:
    """Prepares grants and tells the board, and ``prepared`` where one may be issued for by something new."""

    def __init__(
        self,
        *,
        preparer: Preparer,
        finalizers: Finalizers,
        book: GrantBook,
        board: StatusBoard,
        leader: Leader,
        prepared: Callable[[ClientId, str], None],
    ) -> None:
        self._preparer = preparer
        self._finalizers = finalizers
        self._book = book
        self._board = board
        self._leader = leader
        self._prepared = prepared

    def take_over(self, registration: Registration, client: Client) -> bool:
        """Let the grants of a client that is new to this process be issued for by the word of the leader before.

        Else a broker that was started again would serve nobody until it has looked at everybody. Returns False where
        there is no such word about one of them.
        """
        status = registration.status
        taken = [
            self._preparer.take_over(client, it, listed_anchor(status, client.generation, it)) for it in client.grants
        ]
        return all(taken)

    async def prepare(self, registration: Registration, client: Client, not_ended: list[NotEnded]) -> float:
        """Prepare all grants but those whose tokens from before have not ended.

        Returns for how many seconds those have to wait that need another look; 0 where none has to.

        Where the status cannot list them, only those are looked at that it lists. Raises BrokerError: the last
        fault.
        """
        self._board.resumed(client.id)
        for kept in (self._preparer, self._board, self._book):
            kept.keep(client)
        failures = [it.fault for it in not_ended]
        leading = self._leader.leading
        not_listed = await self._list(registration, client) if leading else None
        failures += [not_listed] if not_listed is not None else []
        wait = self._preparer.wait(client)
        owed = {it.grant.name: it.fault for it in not_ended}
        for grant in self._those_that_are_waited_for_first(client):
            if self._leader.leading and not leading:
                break  # since a moment ago: it visits everybody anew, and lists grants before it makes anchors
            ready = self._book.get(client, grant) is not None
            if (ready and wait > 0) or (not_listed is not None and unlisted(registration.status, [grant])):
                continue
            fault = owed.get(grant.name)
            if fault is None:
                fault = await self._prepare(client, grant, listed_anchor(registration.status, client.generation, grant))
            else:
                self._stands_back(client, grant, fault)
            failures += [fault] if fault is not None else []
        # Written even where no fact changed: the specification may have (suspend, notAfter, a new generation).
        self._board.queue.add(client.id)
        if failures:
            raise failures[-1].error()
        return wait

    def _those_that_are_waited_for_first(self, client: Client) -> list[Grant]:
        """Return a client's grants: looking again at those that work would only keep the others waiting."""
        return sorted(client.grants, key=lambda grant: self._book.get(client, grant) is not None)

    def _stands_back(self, client: Client, grant: Grant, fault: Fault) -> None:
        """Let nothing be issued for a grant while tokens of it live that should not: they have the same anchor."""
        self._book.bar(client, grant, fault)
        self._board.rehearsed(client.id, grant.name, fault, None)

    async def _prepare(self, client: Client, grant: Grant, listed: ListedAnchor | None) -> Fault | None:
        access: AccessFacts | None = None
        fault: Fault | None = None
        before = self._book.get(client, grant)
        try:
            access = await self._preparer.prepare(client, grant, listed)
        except BrokerError as error:
            fault = Fault.of(error)
        finally:  # also where this is given up for something more urgent
            now = self._book.get(client, grant)
            if now is not None and (before is None or _by(before) != _by(now)):
                self._prepared(client.id, grant.name)
        if self._leader.leading:
            self._board.rehearsed(client.id, grant.name, fault, access, now)
        return fault

    async def _list(self, registration: Registration, client: Client) -> Fault | None:
        """Do what has to be done before an anchor is made, so that it is found again, or return why it could not be."""
        try:
            registration = await self._finalizers.put(registration)
            if unlisted(registration.status, client.grants):
                await self._board.write_down(registration)
        except BrokerError as error:
            return Fault.of(error)
        return None


def _by(prepared: Prepared) -> tuple[str, str]:
    """Return by what a grant is issued for: where that is another one, its copy in Vault may be dead."""
    return prepared.anchor.uid, prepared.account_uid
