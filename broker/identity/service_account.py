"""Tokens of the cluster's own ServiceAccounts, for the broker's audience and nobody else's.

A token for the API server's audience is refused: with it, every pod that leaks one, or every program that gets
one to look at, would be a client. Tokens that the broker minted are bound to Secrets and never prove anything.
"""

import hashlib
from collections import OrderedDict

from broker.errors import ProofError, ProofFailure
from broker.identity.jose import ALL_ALGORITHMS, Unverified, check_times, verify
from broker.identity.key_set import KeySet
from broker.model.account import USER_PREFIX
from broker.model.proof import VerifiedAccount, audience_is
from broker.ports import Clock, ProofReviewer, Reviewed

CACHE_SECONDS = 3.0
"""How long the API server's word counts: an account that is deleted is refused this much later."""

CACHE_ENTRIES = 4096
MAX_AGE_SECONDS = 366 * 24 * 3600.0
"""The API server's own limit on tokens; how old they are is its business."""


class ClusterTokens:
    """Verifies ServiceAccount tokens: the signature here, so that made-up ones cost no call, then by TokenReview."""

    def __init__(self, issuer: str, audience: str, keys: KeySet, reviewer: ProofReviewer, clock: Clock) -> None:
        self.issuer = issuer
        self._audience = audience
        self._keys = keys
        self._reviewer = reviewer
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, VerifiedAccount]] = OrderedDict()

    async def verify(self, token: Unverified) -> VerifiedAccount:
        """Return the account. Raises ProofError, or BrokerError where the API server cannot be asked."""
        key = hashlib.sha256(token.text.encode()).digest()
        until, known = self._cache.get(key, (0.0, None))
        if known is not None and self._clock.monotonic() < until:
            return known
        claims = verify(token, await self._keys.find(token), ALL_ALGORITHMS)
        check_times(claims, self._clock.now(), MAX_AGE_SECONDS)
        if not audience_is(claims, self._audience):
            raise ProofError(ProofFailure.WRONG_AUDIENCE, "The token must be for the broker alone (aud).")
        if "secret" in _bound_to(claims):
            raise ProofError(ProofFailure.NOT_ACCEPTED)
        reviewed = await self._reviewer.review(token.text, self._audience, _named(claims.get("sub"))[0])
        account = _account(reviewed, self._audience)
        self._remember(key, account)
        return account

    def _remember(self, key: bytes, account: VerifiedAccount) -> None:
        self._cache[key] = (self._clock.monotonic() + CACHE_SECONDS, account)
        self._cache.move_to_end(key)
        if len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)


def _bound_to(claims: object) -> dict[str, object]:
    kubernetes = claims.get("kubernetes.io") if isinstance(claims, dict) else None
    return kubernetes if isinstance(kubernetes, dict) else {}


def _account(reviewed: Reviewed | None, audience: str) -> VerifiedAccount:
    if reviewed is None or reviewed.audiences != (audience,):
        raise ProofError(ProofFailure.ACCOUNT_GONE, "The API server does not accept the token any more.")
    namespace, name = _named(reviewed.username)
    return VerifiedAccount(namespace, name, reviewed.uid)


def _named(user: object) -> tuple[str, str]:
    """Return the namespace and name of an account, of what it is called as a user. Raises ProofError."""
    namespace, colon, name = str(user).removeprefix(USER_PREFIX).partition(":")
    if not str(user).startswith(USER_PREFIX) or not colon:
        raise ProofError(ProofFailure.NOT_ACCEPTED)
    return namespace, name
