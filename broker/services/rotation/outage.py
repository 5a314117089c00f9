"""While Vault is away, one question every few seconds stands for all copies; they are looked at once it is back."""

from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.model.vault_path import CopyKey


class Reach(Protocol):
    """Knows whether Vault answers (:class:`broker.services.rotation.pulse.VaultPulse`)."""

    @property
    def away(self) -> BrokerError | None:
        """Return what asking met last; None where Vault answered, or refused, or was not asked yet."""

    def doubt(self) -> None:
        """Ask soon: somebody got no answer."""


class Outage:
    """Remembers the copies that were not looked at because Vault was away."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._missed: set[CopyKey] = set()

    @property
    def away(self) -> BrokerError | None:
        """Return why no copy need be tried now, or None."""
        return self._reach.away

    def missed(self, key: CopyKey) -> None:
        """Remember a copy that was not tried."""
        self._missed.add(key)

    def met(self, key: CopyKey, error: BrokerError) -> None:
        """Remember a copy that got no answer; that may be so for all."""
        if error.reason is Reason.VAULT_UNAVAILABLE:
            self._missed.add(key)
            self._reach.doubt()

    def over(self) -> set[CopyKey]:
        """Return the copies that were missed, and forget them."""
        missed, self._missed = self._missed, set()
        return missed
