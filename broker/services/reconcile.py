"""Make each client ready ahead of its first request, and find out what stands in the way."""

from broker.errors import BrokerError, Fault, Reason
from broker.model.client import Client, ClientId, Grant
from broker.model.decision import Rules, allowed_audiences, grant_problem
from broker.model.schedule import spread
from broker.model.token import TokenSpec
from broker.ports import Anchors, Minter, Registry
from broker.services.anchor_book import AnchorBook
from broker.services.board import StatusBoard
from broker.services.workqueue import WorkQueue

RECHECK_SECONDS = 300.0
"""A grant that works is tried out again after one to two times this long, spread by the client's name."""


class Reconciler:
    """Keeps an anchor for each grant and tries out a mint of it, keeping nothing."""

    def __init__(
        self,
        *,
        registry: Registry,
        anchors: Anchors,
        minter: Minter,
        book: AnchorBook,
        board: StatusBoard,
        rules: Rules,
        workers: int = 8,
    ) -> None:
        self._registry = registry
        self._anchors = anchors
        self._minter = minter
        self._book = book
        self._board = board
        self._rules = rules
        self._seen: dict[ClientId, tuple[str, int]] = {}
        self.queue: WorkQueue[ClientId] = WorkQueue("reconcile", self.visit, workers=workers)

    def changed(self, client_id: ClientId) -> None:
        """Take note that a registration came, changed or went; a change of its status alone is nothing new."""
        registration = self._registry.get(client_id)
        if registration is None:
            self.queue.add(client_id)
        elif self._seen.get(client_id) != (registration.uid, registration.generation):
            self._seen[client_id] = (registration.uid, registration.generation)
            self.queue.add(client_id)

    async def visit(self, client_id: ClientId) -> float | None:
        """Prepare all grants of a client; the queue's handler. Raises the last fault, for the queue's backoff."""
        registration = self._registry.get(client_id)
        if registration is None:
            await self._end(client_id)
            self._forget(client_id)
            return None
        if registration.client is None:
            self._board.queue.add(client_id)
            return None
        await self._prepare_all(registration.client)
        return RECHECK_SECONDS * (1 + spread(str(client_id)))

    async def _prepare_all(self, client: Client) -> None:
        failure: BrokerError | None = None
        for grant in client.grants:
            try:
                await self._prepare(client, grant)
            except BrokerError as error:
                failure = error
                self._board.rehearsed(client.id, grant.name, Fault.of(error))
            else:
                self._board.rehearsed(client.id, grant.name, None)
        # Written even where no fact changed: the specification may have (suspend, notAfter, a new generation).
        self._board.queue.add(client.id)
        if failure is not None:
            raise failure

    async def _prepare(self, client: Client, grant: Grant) -> None:
        problem = grant_problem(client.id.namespace, grant, self._rules)
        if problem is not None:
            raise BrokerError(Reason.GRANT_FORBIDDEN, problem)
        anchor = self._book.get(client, grant.name)
        if anchor is None:
            anchor = await self._anchors.ensure(client, grant.name)
            self._book.put(client, grant.name, anchor)
        spec = TokenSpec(
            client.id.namespace,
            grant.service_account,
            allowed_audiences(grant, self._rules)[0],
            grant.ttl.default_seconds,
            anchor,
        )
        try:
            await self._minter.rehearse(spec)
        except BrokerError as error:
            if error.reason is Reason.ANCHOR_MISSING:
                self._book.drop(client, grant.name, anchor)
            raise

    async def _end(self, client_id: ClientId) -> None:
        """Delete the anchors of a client that went. Those that a TokenClient owns would go by themselves."""
        for anchor in self._book.of(client_id):
            await self._anchors.delete(client_id.namespace, anchor)

    def _forget(self, client_id: ClientId) -> None:
        self._seen.pop(client_id, None)
        self._book.forget(client_id)
        self._board.forget(client_id)
