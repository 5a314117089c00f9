"""Assertions that a client signs with a key of its own (private_key_jwt: RFC 7523, OpenID Connect Core, 9)."""

import heapq
import json
import secrets
from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.errors import BrokerError, ProofError, ProofFailure, Reason
from broker.identity.jose import (
    ALGORITHMS,
    ALL_ALGORITHMS,
    LEEWAY_SECONDS,
    PublicKey,
    Unverified,
    check_times,
    parse,
    public_key,
    verify,
)
from broker.model.client import Client
from broker.model.proof import audience_is
from broker.ports import Clock

MAX_LIFE_SECONDS = 3600
"""An assertion is made for one request: what lives longer is refused, and so is what is older.

Libraries let theirs live for up to an hour (Authlib).
"""

MAX_REMEMBERED = 16_384
"""How many assertions a client may use within their life, so that remembering them is bounded."""

MAX_ID_CHARACTERS = 256

_CURVES: Mapping[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


class Assertions:
    """Verifies assertions, each of them once. ``audiences`` are the broker's own names: its URL, its token endpoint."""

    def __init__(self, audiences: tuple[str, ...], clock: Clock) -> None:
        self._audiences = audiences
        self._clock = clock
        self._used = _UsedIds()

    def claimed(self, text: str) -> str:
        """Return which client an assertion says that it is of, unverified. Raises ProofError."""
        return parse(text).issuer

    def verify(self, text: str, client: Client | None) -> None:
        """Accept an assertion of a client, or refuse it like one of a client that is not known.

        Raises ProofError, or BrokerError(too_many_proofs) where more are in use than can be remembered.
        """
        token = parse(text)
        claims = verify(token, _choose(client, token), ALL_ALGORITHMS)
        if client is None or not claims.get("iss") == claims.get("sub") == str(client.id):
            raise ProofError(ProofFailure.CLAIMS_MISMATCH, "An assertion's iss and sub are the client's id.")
        now = self._clock.now()
        check_times(claims, now, MAX_LIFE_SECONDS)
        if claims["exp"] - now.timestamp() > MAX_LIFE_SECONDS + LEEWAY_SECONDS:
            raise ProofError(ProofFailure.MALFORMED, f"An assertion may live {MAX_LIFE_SECONDS} s at most (exp).")
        if not any(audience_is(claims, audience) for audience in self._audiences):
            raise ProofError(ProofFailure.WRONG_AUDIENCE, "An assertion is for the broker's URL alone (aud).")
        self._used.use(client.uid, claims, now.timestamp())


class _UsedIds:
    """The ``jti`` of assertions that could still be replayed, by the client's UID."""

    def __init__(self) -> None:
        self._ids: set[tuple[str, str]] = set()
        self._ends: list[tuple[float, str, str]] = []
        self._counts: Counter[str] = Counter()

    def use(self, uid: str, claims: Mapping[str, Any], now: float) -> None:
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= MAX_ID_CHARACTERS:
            raise ProofError(ProofFailure.MALFORMED, f"An assertion has a jti of 1 to {MAX_ID_CHARACTERS} characters.")
        self._drop_ended(now)
        if (uid, jti) in self._ids:
            raise ProofError(ProofFailure.REPLAYED, "The assertion was used before (jti): make a new one.")
        if self._counts[uid] >= MAX_REMEMBERED:
            raise BrokerError(
                Reason.TOO_MANY_PROOFS,
                f"The client has {MAX_REMEMBERED} assertions in use: let them live shorter (exp), or keep tokens.",
                retry_after=LEEWAY_SECONDS,
            )
        self._ids.add((uid, jti))
        self._counts[uid] += 1
        heapq.heappush(self._ends, (claims["exp"] + LEEWAY_SECONDS, uid, jti))

    def _drop_ended(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, uid, jti = heapq.heappop(self._ends)
            self._ids.discard((uid, jti))
            self._counts[uid] -= 1
            if not self._counts[uid]:
                del self._counts[uid]


def _choose(client: Client | None, token: Unverified) -> PublicKey:
    """Return the key to verify with, or one that nobody has: an unknown client costs what a known one does."""
    keys = [_key(json.dumps(dict(rule.jwk))) for rule in client.proofs.keys] if client else []
    fitting = [key for key in keys if key is not None and token.algorithm in key.algorithms]
    if token.key_id is not None:
        fitting = [key for key in fitting if key.key_id in {None, token.key_id}]
    return fitting[0] if len(fitting) == 1 else _nobodys(token.algorithm)


@lru_cache(maxsize=1024)
def _key(jwk: str) -> PublicKey | None:
    return public_key(json.loads(jwk))


@cache
def _nobodys(algorithm: str) -> PublicKey:
    kind, curve = next(kind for kind, algorithms in ALGORITHMS.items() if algorithm in algorithms)
    if kind == "RSA":
        modulus = secrets.randbits(2048) | 1 << 2047 | 1
        return PublicKey(None, ALGORITHMS[kind, curve], rsa.RSAPublicNumbers(65537, modulus).public_key())
    private = ec.generate_private_key(_CURVES[curve]) if kind == "EC" else ed25519.Ed25519PrivateKey.generate()
    return PublicKey(None, ALGORITHMS[kind, curve], private.public_key())
