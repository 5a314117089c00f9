"""What a TokenClient's status says of copies in Vault. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from broker.errors import Fault
from broker.model.duration import format_duration
from broker.model.times import timestamp


@dataclass(frozen=True, slots=True)
class VaultFacts:
    """The copy of a grant's token in Vault. ``fault`` says why it could not be brought up to date."""

    path: str
    version: int
    not_after: datetime | None
    renewal_time: datetime | None
    safe_poll_seconds: int
    fault: Fault | None

    def ended(self) -> Self:
        """Return what is true when its token was ended: it is there, and there is nothing to wait for."""
        return replace(self, not_after=None, renewal_time=None, safe_poll_seconds=0)

    def expired(self, now: datetime) -> bool:
        """Tell whether its token ended by itself."""
        return self.not_after is not None and self.not_after <= now

    def document(self) -> dict[str, Any]:
        """Return the entry of its grant."""
        document: dict[str, Any] = {"path": self.path, "version": self.version}
        if self.not_after is not None:
            document["notAfter"] = timestamp(self.not_after)
        if self.renewal_time is not None:
            document["renewalTime"] = timestamp(self.renewal_time)
        if self.safe_poll_seconds:
            document["safePollInterval"] = format_duration(self.safe_poll_seconds)
        return document


def vault_columns(copies: Iterable[VaultFacts]) -> dict[str, str]:
    """Return what ``kubectl get`` shows of all copies: when the first of them ends, and is replaced."""
    known = list(copies)
    ends = [copy.not_after for copy in known if copy.not_after is not None]
    renewals = [copy.renewal_time for copy in known if copy.renewal_time is not None]
    columns = {"vaultNotAfter": ends, "vaultRenewalTime": renewals}
    return {name: timestamp(min(times)) for name, times in columns.items() if times}


def differs_about_vault_only(status: Mapping[str, Any], previous: Mapping[str, Any]) -> bool:
    """Tell whether two statuses say the same of a client, but for its copies in Vault."""
    return _without_vault(status) == _without_vault(previous)


def _without_vault(status: Mapping[str, Any]) -> tuple[object, ...]:
    conditions = [it for it in status.get("conditions", ()) if it.get("type") != "VaultSynced"]
    said = [(it.get("type"), it.get("status"), it.get("reason")) for it in conditions]
    grants = [{key: value for key, value in it.items() if key != "vault"} for it in status.get("grants", ())]
    return status.get("observedGeneration"), said, grants
