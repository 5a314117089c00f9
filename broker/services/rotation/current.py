"""Bring a copy in Vault up to date, by as few calls as what made it due lets."""

from collections.abc import Callable

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin
from broker.model.decision import Rules, grant_problem
from broker.model.stored_copy import StoredCopy
from broker.model.token import Anchor
from broker.model.vault_path import CopyKey
from broker.ports import Clock
from broker.services.grant_book import GrantBook
from broker.services.rotation.copy import Target, as_it_should_be, bound_as_made, due, renewal
from broker.services.rotation.left_anchors import LeftAnchors
from broker.services.rotation.root import VaultRoots
from broker.services.rotation.shown import ShownCopies
from broker.services.rotation.write import CopyWriter


class CurrentCopies:
    """Writes new versions and shows them. Whoever calls sees to it that one call at a time is for one path.

    All raise BrokerError: why no token may be issued for the grant, and that of the minter, anchors, audit and store.
    """

    def __init__(
        self,
        *,
        writer: CopyWriter,
        roots: VaultRoots,
        left: LeftAnchors,
        shown: ShownCopies,
        book: GrantBook,
        rules: Rules,
        clock: Clock,
        new_request_id: Callable[[], str],
    ) -> None:
        self._writer = writer
        self._roots = roots
        self._left = left
        self._shown = shown
        self._book = book
        self._rules = rules
        self._clock = clock
        self._new_request_id = new_request_id
        self._made_whole: dict[CopyKey, int] = {}
        """Copies of which this process has written the newest version, and was not cut short since."""

    def forget(self, key: CopyKey) -> None:
        """Forget a copy that was removed."""
        self._made_whole.pop(key, None)

    def stand_back(self) -> None:
        """Take for granted nothing more: another replica writes, and may be cut short."""
        self._made_whole.clear()

    def looked_at(self, target: Target) -> bool:
        """Tell whether it is known whether tokens may be issued for the grant."""
        return self._roots.looked_at(target)

    async def keep(self, target: Target, copy: StoredCopy | None) -> StoredCopy:
        """Return a copy that is as it should be, written now where ``copy``, the target's own, is not."""
        self._roots.require(target)
        prepared = self._book.get(target.client, target.grant)
        account_uid = prepared.account_uid if prepared is not None else ""
        renewed = await self._renewed(target, copy, account_uid) if copy is not None else None
        if renewed is not None:
            return renewed
        root = await self._roots.ensure(target)
        if copy is None or due(copy, target, root, account_uid, self._clock.now()):
            return await self._write(target, copy, root, Origin(self._new_request_id()))
        return copy

    async def replace(self, target: Target, copy: StoredCopy | None, origin: Origin) -> StoredCopy:
        """Write a version on top of ``copy``, due or not, and return it."""
        self._roots.require(target)
        root = await self._roots.ensure(target)
        try:
            return await self._write(target, copy, root, origin)
        except BaseException:  # also where the caller is gone
            self._left.failed(target, root, 1 + (copy.current_version if copy else 0))
            raise

    async def _write(self, target: Target, copy: StoredCopy | None, root: Anchor, origin: Origin) -> StoredCopy:
        self._still_allowed(target)
        self._made_whole.pop(target.key, None)
        written = await self._writer.write(target, copy, root, origin)
        return self._show(target, written)

    async def _renewed(self, target: Target, copy: StoredCopy, account_uid: str) -> StoredCopy | None:
        """Return the next version where nothing but time made it due, and None otherwise, or where its anchor is gone.

        No anchor is asked about first: the API server mints for none that is not there. Where an attempt may have been
        cut short, the next version has an anchor of its own, which finds the one that the attempt has made.
        """
        label, now = copy.label, self._clock.now()
        if label is None or self._made_whole.get(target.key) != copy.current_version or now < renewal(label, target):
            return None
        if not (bound_as_made(label, target) and as_it_should_be(copy, target, account_uid, now)):
            return None
        self._still_allowed(target)
        try:
            return self._show(target, await self._writer.renew(target, label, Origin(self._new_request_id())))
        except BrokerError as error:
            if error.reason is not Reason.ANCHOR_MISSING:
                raise
        return None

    def _show(self, target: Target, written: StoredCopy) -> StoredCopy:
        self._made_whole[target.key] = written.current_version
        self._shown.written(target, written)
        return written

    def _still_allowed(self, target: Target) -> None:
        """Raise BrokerError where the operator does not allow the grant, or nobody knows any more (registry_stale)."""
        problem = grant_problem(target.client.id.namespace, target.grant, self._rules)
        if problem is not None:
            raise BrokerError(problem.reason, problem.detail)
