"""Remove a copy from Vault: Vault deletes whatever is there, so a look stands right before each step that harms."""

import structlog

from broker.errors import BrokerError, Reason
from broker.model.stored_copy import StoredCopy
from broker.model.vault_path import CopyKey, VaultPlace
from broker.ports import Leader, VaultStore
from broker.services.rotation.write import CopyWriter

log = structlog.get_logger(__name__)


class Removal:
    """Ends a copy's tokens, and deletes it, if that is as it was seen still."""

    def __init__(self, *, store: VaultStore, writer: CopyWriter, place: VaultPlace, leader: Leader) -> None:
        self._store = store
        self._writer = writer
        self._place = place
        self._leader = leader

    async def clear(self, copy: StoredCopy, *, led: bool) -> None:
        """Remove a copy that was seen; ``led``: this replica led before it looked, and has to lead still.

        A follower removes what was left at the path that it is to deliver to, and never led.
        Raises BrokerError: vault_write_conflict where either has changed, and those of :meth:`CopyWriter.end`.
        """
        label = copy.label
        if label is None:
            return
        path = self._place.path(CopyKey(label.client, label.grant))
        self._require_lead(led=led)
        await self._writer.end(label)
        there = await self._store.inspect(path)
        if there is not None and there.label != label:
            raise _not_as_seen()
        self._require_lead(led=led)
        await self._store.remove(path)
        log.info("vault.removed", client=str(label.client), grant=label.grant)

    def _require_lead(self, *, led: bool) -> None:
        if led and not self._leader.leading:
            raise _not_as_seen()


def _not_as_seen() -> BrokerError:
    text = (
        "A copy in Vault that was to be removed is not as it was seen, or another replica leads: it is looked at again."
    )
    return BrokerError(Reason.VAULT_WRITE_CONFLICT, text, operator_detail=text)
