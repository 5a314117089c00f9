"""Make each client ready ahead of its first request, and end its tokens when it may have none any more."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import Named
from broker.model.client import Client, ClientId, Grant
from broker.model.decision import standing
from broker.model.former_grants import grants_left, unlisted
from broker.model.schedule import spread
from broker.model.status import AccessFacts
from broker.ports import Clock, Leader, Registration, Registry
from broker.services.board import StatusBoard
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook
from broker.services.prepare import Preparer
from broker.services.token_anchors import TokenAnchors
from broker.services.workqueue import WorkQueue

RECHECK_SECONDS = 300.0
"""A grant that works is looked at again after one to two times this long, spread by the client's name."""

FIRST_SECONDS = 3600.0
"""A client whose tokens have to end is visited as if it had waited this long: before all that only want some."""

Seen = tuple[str, int, bool, datetime | None]


class Finalizers(Protocol):
    """Puts the broker's finalizer on TokenClients: one that is deleted waits until its tokens have ended."""

    async def put(self, registration: Registration) -> Registration:
        """See to it that the finalizer is there, and return what is registered then.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout.
        """

    async def release(self, registration: Registration) -> None:
        """Take the finalizer off. Raises BrokerError like :meth:`put`."""


class Reconciler:
    """Visits clients. What they share among replicas only the leader makes and ends; every replica keeps its book.

    ``prepared`` is told of each grant that may be issued for from now on, and whose account was made again.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        preparer: Preparer,
        ender: Ender,
        finalizers: Finalizers,
        book: GrantBook,
        tokens: TokenAnchors,
        board: StatusBoard,
        leader: Leader,
        clock: Clock,
        prepared: Callable[[ClientId, str], None],
        workers: int = 8,
    ) -> None:
        self._registry = registry
        self._preparer = preparer
        self._ender = ender
        self._finalizers = finalizers
        self._book = book
        self._tokens = tokens
        self._board = board
        self._leader = leader
        self._clock = clock
        self._prepared = prepared
        self._unowned: dict[ClientId, Registration] = {}
        self._seen: dict[ClientId, Seen] = {}
        self._of_namespace: dict[str, set[ClientId]] = {}
        self.queue: WorkQueue[ClientId] = WorkQueue("reconcile", self.visit, workers=workers)

    def changed(self, client_id: ClientId) -> None:
        """Take note that a registration came, changed or went; a change of its status alone is nothing new."""
        registration = self._registry.get(client_id)
        if registration is None:
            self.queue.add(client_id, -FIRST_SECONDS)
        elif self._seen.get(client_id) != _seen(registration):
            self._seen[client_id] = _seen(registration)
            self._of_namespace.setdefault(client_id.namespace, set()).add(client_id)
            self.queue.add(client_id, -FIRST_SECONDS if self._is_over(registration) else 0.0)

    def namespace_changed(self, namespace: str) -> None:
        """Take note that what the operator allows in a namespace may have changed."""
        for client_id in self._of_namespace.get(namespace, ()):
            self.queue.add(client_id)

    def lead(self) -> None:
        """Visit everybody: this replica leads from now on."""
        for client_id in self._seen:
            self.queue.add(client_id)

    def stand_back(self) -> None:
        """Take note that this replica leads no more."""
        self._ender.stand_back()

    async def visit(self, client_id: ClientId) -> float | None:
        """Prepare all grants of a client; the queue's handler. Raises the last fault, for the queue's backoff."""
        registration = self._registry.get(client_id)
        if registration is None:
            await self._end_unowned(client_id)
            self._forget(client_id)
            return None
        client = registration.client
        if registration.deleting or client is None:
            await self._give_up(registration)
            return None
        return await self._look_after(registration, client)

    async def _give_up(self, registration: Registration) -> None:
        """Issue nothing for what is being deleted, or is not valid. Tokens of the latter end where it is suspended."""
        self._book.forget(registration.id)
        self._board.queue.add(registration.id)
        if registration.deleting and self._leader.leading:
            await self._let_go(registration)
        elif registration.suspended and self._leader.leading:
            await self._ender.end(
                registration.id, registration.uid, grants_left(registration.status, ()), "client_suspended"
            )

    def _is_over(self, registration: Registration) -> bool:
        client = registration.client
        return registration.deleting or (client is not None and standing(client, self._clock.now()) is not None)

    async def _end_unowned(self, client_id: ClientId) -> None:
        """End the tokens of a client that no resource stood for, so that nothing was deleted with it."""
        last = self._unowned.get(client_id)
        if last is not None and last.client is not None and self._leader.leading:
            await self._ender.end(client_id, last.uid, last.client.grants, "client_removed")

    async def _let_go(self, registration: Registration) -> None:
        """End all tokens of a TokenClient that is being deleted, and let it go."""
        now = registration.client.grants if registration.client is not None else ()
        grants: list[Named] = [*now, *grants_left(registration.status, now)]
        await self._ender.end_or_leave(registration.id, registration.uid, grants, "client_deleted")
        await self._finalizers.release(registration)

    async def _look_after(self, registration: Registration, client: Client) -> float:
        now = self._clock.now()
        self._look_at_its_end(client, now)
        if not registration.resource_version:
            self._unowned[client.id] = registration
        denied = standing(client, now)
        if self._leader.leading:
            await self._lead_on(registration, client, active=denied is None)
        wait = self._preparer.wait(client) if denied is None else 0.0
        if wait > 0:
            return wait
        if denied is None:
            await self._prepare_all(client)
        else:
            await self._stop(client, denied.reason)
        return RECHECK_SECONDS * (1 + spread(str(client.id)))

    async def _lead_on(self, registration: Registration, client: Client, *, active: bool) -> None:
        """Do what has to be done before an anchor is made: it must be found again, whatever happens then."""
        left = grants_left(registration.status, client.grants)
        if left:
            await self._ender.end(client.id, client.uid, left, "grant_removed")
        self._board.ended(client.id, left)
        if active:
            registration = await self._finalizers.put(registration)
            if unlisted(registration.status, client.grants):
                await self._board.write_down(registration)

    def _look_at_its_end(self, client: Client, now: datetime) -> None:
        """Visit a client when its registration ends, however this visit goes."""
        if client.not_after is not None and client.not_after > now:
            self.queue.add(client.id, (client.not_after - now).total_seconds() + 1)

    async def _stop(self, client: Client, why: Reason) -> None:
        """End the tokens of a client that is suspended, or whose time is over."""
        self._book.forget(client.id)
        self._preparer.forget(client.id)
        self._board.queue.add(client.id)
        if self._leader.leading:
            await self._ender.end(client.id, client.uid, client.grants, str(why))

    async def _prepare_all(self, client: Client) -> None:
        failure: BrokerError | None = None
        for grant in client.grants:
            failure = await self._prepare(client, grant) or failure
        # Written even where no fact changed: the specification may have (suspend, notAfter, a new generation).
        self._board.queue.add(client.id)
        if failure is not None:
            raise failure

    async def _prepare(self, client: Client, grant: Grant) -> BrokerError | None:
        access: AccessFacts | None = None
        failure: BrokerError | None = None
        before = self._book.get(client, grant)
        try:
            access = await self._preparer.prepare(client, grant)
        except BrokerError as error:
            failure = error
        now = self._book.get(client, grant)
        if now is not None and (before is None or before.account_uid != now.account_uid):
            self._prepared(client.id, grant.name)
        self._board.rehearsed(client.id, grant.name, Fault.of(failure) if failure else None, access)
        return failure

    def _forget(self, client_id: ClientId) -> None:
        self._seen.pop(client_id, None)
        neighbours = self._of_namespace.get(client_id.namespace, set())
        neighbours.discard(client_id)
        if not neighbours:
            self._of_namespace.pop(client_id.namespace, None)
        self._unowned.pop(client_id, None)
        self._book.forget(client_id)
        self._tokens.forget(client_id)
        self._ender.forget(client_id)
        self._preparer.forget(client_id)
        self._board.forget(client_id)


def _seen(registration: Registration) -> Seen:
    asked = registration.client.rotate_requested if registration.client is not None else None
    return registration.uid, registration.generation, registration.deleting, asked
