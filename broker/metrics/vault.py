"""The metrics of copies in Vault, and of Vault itself."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from broker.errors import Reason
from broker.metrics.series import ClientSeries
from broker.model.client import ClientId

UNREACHABLE = (Reason.VAULT_UNAVAILABLE, Reason.VAULT_DENIED)
"""Why Vault may not do what it is asked for."""


class VaultMetrics:
    """What is told about Vault; of copies the leader tells alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        series = partial(ClientSeries, registry)
        self._writes = series(
            "counter",
            "tokenbroker_vault_writes",
            "Attempts to bring a token in Vault up to date, by outcome (success, or the reason).",
            ("grant", "outcome"),
        )
        self._expiry = series(
            "gauge",
            "tokenbroker_vault_token_expiry_timestamp_seconds",
            "When the current token in Vault expires, in seconds since 1970.",
            ("grant",),
        )
        self._renewal = series(
            "gauge",
            "tokenbroker_vault_token_renewal_timestamp_seconds",
            "When the current token in Vault is to be replaced, in seconds since 1970.",
            ("grant",),
        )
        self._unreachable = Gauge(
            "tokenbroker_vault_unreachable",
            "1 where Vault did not do what this replica asked last, by why.",
            ["reason"],
            registry=registry,
        )
        self._logins = Counter(
            "tokenbroker_vault_logins", "Logins and renewals, by outcome.", ["outcome"], registry=registry
        )
        self.vault_asked(None)

    def vault_written(self, client: ClientId, grant: str, outcome: str) -> None:
        """Count an attempt to bring a token in Vault up to date."""
        self._writes.inc(client, grant, outcome)

    def vault_times(self, client: ClientId, grant: str, *, expiry: float, renewal: float) -> None:
        """Set when the token in Vault expires, and when it is to be replaced."""
        self._expiry.set(expiry, client, grant)
        self._renewal.set(renewal, client, grant)

    def vault_removed(self, client: ClientId, grant: str) -> None:
        """Drop the times of a copy that was removed."""
        self._expiry.drop(client, grant)
        self._renewal.drop(client, grant)

    def nothing_in_vault(self) -> None:
        """Drop the times of all copies: another replica tells."""
        self._expiry.clear()
        self._renewal.clear()

    def vault_asked(self, failure: Reason | None) -> None:
        """Set why Vault did not do what it was last asked for; None where it did."""
        for reason in UNREACHABLE:
            self._unreachable.labels(reason).set(reason is failure)

    def vault_login(self, outcome: str) -> None:
        """Count a login to Vault or its renewal."""
        self._logins.labels(outcome).inc()

    def forget(self, client: ClientId) -> None:
        """Drop all series of a client that went."""
        for series in (self._writes, self._expiry, self._renewal):
            series.forget(client)
