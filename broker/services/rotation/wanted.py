"""What is wanted in Vault, by the registry."""

from broker.model.decision import Rules
from broker.model.vault_path import CopyKey, VaultPlace
from broker.ports import Registry
from broker.services.rotation.copy import Target, target_of


class Wanted:
    """Looks it up each time. Both raise BrokerError(registry_stale)."""

    def __init__(self, registry: Registry, rules: Rules, place: VaultPlace) -> None:
        self._registry = registry
        self._rules = rules
        self._place = place

    def target(self, key: CopyKey) -> Target | None:
        """Return what a copy should be, or None where nobody wants one, or the registration is not valid."""
        registration = self._registry.get(key.client)
        if registration is None or registration.client is None:
            return None
        return target_of(registration.client, key.grant, self._rules, self._place)

    def nowhere(self, key: CopyKey) -> bool:
        """Tell whether nobody wants a copy any more. One whose registration is merely invalid is wanted."""
        registration = self._registry.get(key.client)
        if registration is None or registration.deleting:
            return True
        client = registration.client
        return client is not None and target_of(client, key.grant, self._rules, self._place) is None
