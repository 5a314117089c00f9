"""Make each client ready ahead of its first request, and end its tokens when it may have none any more."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from broker.errors import BrokerError
from broker.model.client import Client, ClientId
from broker.model.decision import Denied, standing
from broker.model.schedule import spread
from broker.ports import Clock, Finalizers, Leader, Registration, Registry
from broker.services.anchored import AnchoredGrants
from broker.services.bit_by_bit import bit_by_bit
from broker.services.board import StatusBoard
from broker.services.ending import Ender, NotEnded, may_pass, require_ended
from broker.services.first_pass import FirstPass
from broker.services.grant_book import GrantBook
from broker.services.grants_prepare import GrantsPreparer
from broker.services.overdue import Ended, Overdue
from broker.services.prepare import Preparer
from broker.services.seen import Seen
from broker.services.token_anchors import TokenAnchors
from broker.services.workqueue import WorkQueue

RECHECK_SECONDS = 300.0
"""A grant that works is looked at again after one to two times this long, spread by the client's name."""

WORKERS = 8
"""How many clients are looked at at a time, and beside them, how many whose tokens have to end."""

AGAIN_SECONDS = 5.0
"""A grant that fails is looked at again on request no sooner than this after the last time."""


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
        anchored: AnchoredGrants,
    ) -> None:
        self._registry = registry
        self._preparer = preparer
        self._ender = ender
        self._finalizers = finalizers
        self._grants = GrantsPreparer(
            preparer=preparer, finalizers=finalizers, book=book, board=board, leader=leader, prepared=prepared
        )
        self._book = book
        self._tokens = tokens
        self._board = board
        self._leader = leader
        self._clock = clock
        self._overdue = Overdue(ender, anchored)
        self.first = FirstPass()
        self._seen: dict[ClientId, Seen] = {}
        self._visited: dict[ClientId, float] = {}
        self._of_namespace: dict[str, set[ClientId]] = {}
        self.queue: WorkQueue[ClientId] = WorkQueue(
            "reconcile", self.visit, workers=WORKERS, urgent_work=self.hurry, urgent_workers=WORKERS
        )

    def changed(self, client_id: ClientId) -> None:
        """Take note that a registration came, changed or went; a change of its status alone is nothing new."""
        registration = self._registry.get(client_id)
        if registration is None:
            self.queue.hurry(client_id)
            return
        before, now = self._seen.get(client_id), Seen.of(registration)
        self._seen[client_id] = now
        self._of_namespace.setdefault(client_id.namespace, set()).add(client_id)
        if not now.is_news_after(before, following=not self._leader.leading):
            return
        client = registration.client
        known = before is None and client is not None and self._grants.take_over(registration, client)
        if before is not None and self._leader.leading:
            for name in self._overdue.note(registration, self._denied(registration)):
                self._book.withdraw(client_id, name)
        self._plan(client_id, news=not known)

    def namespace_changed(self, namespace: str) -> None:
        """Take note that what the operator allows in a namespace may have changed, and end what is not any more."""
        for client_id in self._of_namespace.get(namespace, ()):
            if self._forbidden(client_id):
                self.queue.hurry(client_id)
            else:
                self.queue.add(client_id)

    def recheck(self, client_id: ClientId) -> None:
        """Visit a client because a request was refused; however many are, not more often than now and then."""
        self._preparer.want(client_id)
        now = self._clock.monotonic()
        self.queue.add(client_id, max(0.0, self._visited.get(client_id, now - AGAIN_SECONDS) + AGAIN_SECONDS - now))

    def lead(self) -> None:
        """Visit everybody: this replica leads from now on."""
        self._board.start_over()
        bit_by_bit(partial(self._plan, news=False), self._seen)

    def stand_back(self) -> None:
        """Take note that this replica leads no more."""
        self._ender.stand_back()
        self._board.start_over()

    async def run(self, *, by_word: bool) -> None:
        """Visit clients until cancelled; the registry is synced.

        ``by_word``: their statuses tell what the leader has found, so none has to be visited before it is served.
        """
        self.first.begin(() if by_word else self._seen)
        await self.queue.run()

    async def visit(self, client_id: ClientId) -> float | None:
        """Prepare all grants of a client; the queue's handler. Raises the last fault, for the queue's backoff."""
        try:
            return await self._visit(client_id)
        finally:
            self.first.visited(client_id)

    async def _visit(self, client_id: ClientId) -> float | None:
        self._visited[client_id] = self._clock.monotonic()
        registration = self._registry.get(client_id)
        if registration is None:
            await self._see_off(client_id)
            return None
        client = registration.client
        if registration.deleting or client is None:
            await self._give_up(registration)
            return None
        return await self._look_after(registration, client)

    async def hurry(self, client_id: ClientId) -> float | None:
        """End what has to end; the queue's handler where something has. What wants tokens is left to :meth:`visit`."""
        registration = self._registry.get(client_id)
        if registration is None or self._is_over(registration) or registration.client is None:
            return await self.visit(client_id)
        self.queue.add(client_id)
        self._look_at_its_end(registration.client, self._clock.now())
        not_ended: list[NotEnded] = []
        if self._leader.leading:
            not_ended = (await self._end_over(registration, registration.client, None)).not_ended
        await self._preparer.forbid(registration.client)
        require_ended(not_ended)
        return None

    def _plan(self, client_id: ClientId, *, news: bool) -> None:
        """Visit a client soon, ``news`` before the others, and where something has to end, among those in a hurry."""
        try:
            registration = self._registry.get(client_id)
        except BrokerError:  # too old to tell: the visit finds out
            registration = None
        if registration is not None and (self._is_over(registration) or self._overdue.left(registration)):
            self.queue.hurry(client_id) if news else self.queue.add(client_id, urgent=True)
        else:
            self.queue.news(client_id) if news else self.queue.add(client_id)

    def _forbidden(self, client_id: ClientId) -> bool:
        try:
            registration = self._registry.get(client_id)
            client = registration.client if registration is not None else None
            return client is not None and self._preparer.forbids(client)
        except BrokerError:  # nobody knows what is allowed
            return False

    def _is_over(self, registration: Registration) -> bool:
        if registration.client is None:
            return registration.deleting or registration.suspended
        return registration.deleting or self._denied(registration) is not None

    def _denied(self, registration: Registration) -> Denied | None:
        return standing(registration.client, self._clock.now()) if registration.client is not None else None

    async def _see_off(self, client_id: ClientId) -> None:
        """End the tokens of a client that went without the broker's leave, and forget it unless it came again.

        Where the broker has no rights there any more, its namespace has gone as well, as far as anybody can tell.
        """
        fault = may_pass(await self._overdue.end_removed(client_id)) if self._leader.leading else None
        if fault is not None:
            raise fault.error()
        if self._registry.get(client_id) is None:
            self._forget(client_id)

    async def _give_up(self, registration: Registration) -> None:
        """Issue nothing for what is being deleted, or is not valid. Tokens of the latter end where it is suspended."""
        self._book.forget(registration.id)
        if registration.deleting and self._leader.leading:
            await self._let_go(registration)
            return
        if registration.suspended and self._leader.leading:
            self._board.withholding(registration.id)
            not_ended = await self._overdue.end_all(registration, "client_suspended")
            self._board.withheld(registration.id, not_ended)
            require_ended(not_ended)
        elif self._leader.leading:
            require_ended(await self._overdue.pay(registration.id))
        self._board.queue.add(registration.id)

    async def _let_go(self, registration: Registration) -> None:
        """End all tokens of a TokenClient that is being deleted, and let it go.

        Where the broker has no rights there any more, they are left to the garbage collector, which deletes the
        anchors with the TokenClient.
        """
        fault = may_pass(await self._overdue.end_all(registration, "client_deleted"))
        if fault is not None:
            raise fault.error()
        self._ender.forget(registration.id)
        await self._finalizers.release(registration)

    async def _look_after(self, registration: Registration, client: Client) -> float:
        now = self._clock.now()
        self._look_at_its_end(client, now)
        denied = standing(client, now)
        if denied is not None:
            self._withhold(client)
        not_ended: list[NotEnded] = []
        if self._leader.leading:
            not_ended = (await self._end_over(registration, client, denied)).not_ended
        else:
            self._overdue.follow(registration, client)
        if denied is None:
            return await self._grants.prepare(registration, client, not_ended) or _next_look(client)
        if self._leader.leading:
            self._board.withheld(client.id, not_ended)
        require_ended(not_ended)
        return _next_look(client)

    async def _end_over(self, registration: Registration, client: Client, denied: Denied | None) -> Ended:
        ended = await self._overdue.end_over(registration, client, denied)
        self._board.ended(client.id, ended.former)
        return ended

    def _look_at_its_end(self, client: Client, now: datetime) -> None:
        """Visit a client when its registration ends, however this visit goes."""
        if client.not_after is not None and client.not_after > now:
            self.queue.add(client.id, (client.not_after - now).total_seconds() + 1, urgent=True)

    def _withhold(self, client: Client) -> None:
        """Hand out nothing for a client that is suspended, or whose time is over."""
        self._book.forget(client.id)
        self._preparer.forget(client.id)
        if self._leader.leading:
            self._board.withholding(client.id)

    def _forget(self, client_id: ClientId) -> None:
        self._seen.pop(client_id, None)
        neighbours = self._of_namespace.get(client_id.namespace, set())
        neighbours.discard(client_id)
        if not neighbours:
            self._of_namespace.pop(client_id.namespace, None)
        self._visited.pop(client_id, None)
        self._book.forget(client_id)
        self._tokens.forget(client_id)
        self._ender.forget(client_id)
        self._preparer.forget(client_id)
        self._board.forget(client_id)


def _next_look(client: Client) -> float:
    return RECHECK_SECONDS * (1 + spread(str(client.id)))
