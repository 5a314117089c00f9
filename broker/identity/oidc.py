"""JWTs of issuers that the operator lists (OpenID Connect), told apart by ``iss``."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import ProofError, ProofFailure
from broker.identity.jose import Unverified, check_times, verify
from broker.identity.key_set import KeySet
from broker.model.proof import VerifiedJwt, claims_mismatching
from broker.ports import Clock


@dataclass(frozen=True, slots=True)
class OidcIssuer:
    """An issuer as the operator lists it. ``claims`` must be so in every token, whoever the client is."""

    issuer: str
    keys: KeySet
    algorithms: frozenset[str]
    max_age_seconds: float
    claims: Mapping[str, tuple[str, ...]]

    async def verify(self, token: Unverified, clock: Clock) -> VerifiedJwt:
        """Return what the issuer vouches for.

        Raises ProofError, which says nothing of clients, or BrokerError(issuer_unavailable).
        """
        if token.algorithm not in self.algorithms:
            raise ProofError(ProofFailure.ALGORITHM_REFUSED)
        claims = verify(token, await self.keys.find(token), self.algorithms)
        check_times(claims, clock.now(), self.max_age_seconds)
        if claims_mismatching(self.claims, claims):
            raise ProofError(ProofFailure.ISSUER_CLAIMS_MISMATCH)
        return VerifiedJwt(self.issuer, claims)
