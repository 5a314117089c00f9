"""What is shown of copies in Vault: in the status, by the board, and in metrics."""

from dataclasses import replace
from typing import Protocol

from broker.errors import BrokerError, Fault
from broker.model.client import ClientId
from broker.model.stored_copy import StoredCopy
from broker.model.vault_path import CopyKey, VaultPlace
from broker.model.vault_status import VaultFacts
from broker.ports import Leader
from broker.services.rotation.copy import Target, renewal, safe_poll_seconds


class RotationMetrics(Protocol):
    """What is told about copies in Vault."""

    def vault_written(self, client: ClientId, grant: str, outcome: str) -> None:
        """Count an attempt to bring a copy up to date: ``success``, or the reason of its failure."""

    def vault_times(self, client: ClientId, grant: str, *, expiry: float, renewal: float) -> None:
        """Set when the current token in Vault expires and when it is to be replaced, in seconds since 1970."""

    def vault_removed(self, client: ClientId, grant: str) -> None:
        """Drop the times of a copy that was removed."""

    def nothing_in_vault(self) -> None:
        """Drop the times of all copies."""


class CopyBoard(Protocol):
    """Where the state of copies is shown (:class:`broker.services.board.StatusBoard`)."""

    def vault(self, client_id: ClientId, grant: str, facts: VaultFacts | None) -> None:
        """Note the state of a copy; None where it was removed."""


class ShownCopies:
    """Keeps the last facts of each copy, so that a failure does not hide what is there.

    Only the leader shows them: nobody else looks at copies, and would go on showing what was.
    """

    def __init__(self, board: CopyBoard, place: VaultPlace, metrics: RotationMetrics, leader: Leader) -> None:
        self._board = board
        self._place = place
        self._metrics = metrics
        self._leader = leader
        self._facts: dict[CopyKey, VaultFacts] = {}

    def written(self, target: Target, copy: StoredCopy) -> None:
        """Show a version that was just written."""
        self._metrics.vault_written(target.client.id, target.grant.name, "success")
        self.show(target, copy)

    def show(self, target: Target, copy: StoredCopy) -> None:
        """Show what is there."""
        label = copy.label
        if label is None or not self._leader.leading:
            return
        renewed = renewal(label, target)
        facts = VaultFacts(
            path=self._place.text(target.key),
            version=copy.current_version,
            not_after=label.expires_at,
            renewal_time=renewed,
            safe_poll_seconds=safe_poll_seconds(label, target),
            fault=None,
        )
        self._metrics.vault_times(
            target.client.id, target.grant.name, expiry=label.expires_at.timestamp(), renewal=renewed.timestamp()
        )
        self._tell(target.key, facts)

    def failed(self, target: Target, error: BrokerError) -> None:
        """Show why a copy could not be brought up to date, beside what was known of it."""
        self._metrics.vault_written(target.client.id, target.grant.name, str(error.reason))
        if not self._leader.leading:
            return
        unknown = VaultFacts(self._place.text(target.key), 0, None, None, 0, None)
        self._tell(target.key, replace(self._facts.get(target.key, unknown), fault=Fault.of(error)))

    def removed(self, key: CopyKey, *, registered: bool) -> None:
        """Show nothing more of a copy; ``registered``: its client is still there to be told of."""
        self._facts.pop(key, None)
        self._metrics.vault_removed(key.client, key.grant)
        if registered:
            self._board.vault(key.client, key.grant, None)

    def stand_back(self) -> None:
        """Show nothing any more: this replica leads no longer."""
        self._metrics.nothing_in_vault()
        self._facts.clear()

    def _tell(self, key: CopyKey, facts: VaultFacts) -> None:
        self._facts[key] = facts
        self._board.vault(key.client, key.grant, facts)
