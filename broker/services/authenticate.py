"""Find out whether the caller is the client that it names."""

from typing import Protocol

from broker.errors import BrokerError, ProofError, ProofFailure
from broker.model.client import Client, ClientId
from broker.ports import Registry


class AuthenticationMetrics(Protocol):
    """What is told about proofs."""

    def proof_failed(self, failure: ProofFailure) -> None:
        """Count a proof that failed."""


class SecretCheck(Protocol):
    """What is needed of :mod:`broker.identity.secret`."""

    def well_formed(self, text: str) -> bool:
        """Tell, without hashing, whether a text can be a secret at all."""

    def matches(self, secret: str, digests: tuple[bytes, ...]) -> bool:
        """Tell whether one of the digests is the secret's; the work does not depend on the digests."""


class Authenticator:
    """Checks client secrets.

    An unknown client, one without secrets and a wrong secret take the same path and get the same answer, so
    that strangers learn nothing about which clients exist.
    """

    def __init__(self, registry: Registry, secrets: SecretCheck, metrics: AuthenticationMetrics) -> None:
        self._registry = registry
        self._secrets = secrets
        self._metrics = metrics

    def authenticate(self, client: str, secret: str) -> Client:
        """Return the client that proved itself.

        Raises ProofError(invalid_client), or BrokerError(registry_stale) when nobody can be told apart.
        """
        if not self._secrets.well_formed(secret):
            raise self.failed(ProofFailure.MALFORMED)
        known = self._find(client)
        matched = self._secrets.matches(secret, known.secret_digests if known else ())
        if known is None:
            raise self.failed(ProofFailure.UNKNOWN_CLIENT)
        if not matched:
            raise self.failed(ProofFailure.WRONG_SECRET)
        return known

    def failed(self, failure: ProofFailure) -> BrokerError:
        """Count a failure and return the error that every one of them looks like to the caller."""
        self._metrics.proof_failed(failure)
        return ProofError(failure)

    def _find(self, text: str) -> Client | None:
        client_id = ClientId.parse(text)
        # A made-up id is looked up like any other, so that a stale registry answers both alike.
        registration = self._registry.get(client_id or ClientId("", ""))
        return registration.client if registration else None
