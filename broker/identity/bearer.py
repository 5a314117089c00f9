"""Bearer tokens: JWTs of others, each verified the way of its issuer."""

from collections.abc import Iterable

from broker.errors import ProofError, ProofFailure
from broker.identity.jose import parse
from broker.identity.oidc import OidcIssuer
from broker.identity.service_account import ClusterTokens
from broker.model.proof import VerifiedAccount, VerifiedJwt
from broker.ports import Clock


class Bearers:
    """Verifies JWTs before anybody asks which client is meant, so that strangers learn nothing from it."""

    def __init__(self, issuers: Iterable[OidcIssuer], cluster: ClusterTokens | None, clock: Clock) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._cluster = cluster
        self._clock = clock

    async def verify(self, text: str) -> VerifiedJwt | VerifiedAccount:
        """Return what a token proves. Raises ProofError, or BrokerError where its issuer cannot be asked."""
        token = parse(text)
        issuer = self._issuers.get(token.issuer)
        if issuer is not None:
            return await issuer.verify(token, self._clock)
        if self._cluster is not None and token.issuer == self._cluster.issuer:
            return await self._cluster.verify(token)
        raise ProofError(ProofFailure.UNKNOWN_ISSUER)
