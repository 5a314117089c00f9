"""Signed JWTs (RFC 7515, RFC 7519), read as strictly as RFC 8725 advises.

What a token says of itself is never believed: which algorithms count is the verifier's word, keys come from
where the verifier looks for them (no ``jku``, ``x5u`` or ``jwk`` of the token's own), and no extension that has
to be understood (``crit``) is.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.exceptions import PyJWTError

from broker.errors import ProofError, ProofFailure

MAX_TOKEN_CHARACTERS = 8192
MAX_KEYS = 100
LEEWAY_SECONDS = 30
"""How far an issuer's clock may be from ours."""

RSA_BITS = range(2048, 8193)

ALGORITHMS: Mapping[tuple[str, str], frozenset[str]] = {
    ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""What each kind of key can have signed (RFC 7518, 3.1; RFC 8037): public keys only."""

ALL_ALGORITHMS = frozenset().union(*ALGORITHMS.values())

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_JWS = jwt.PyJWS(algorithms=sorted(ALL_ALGORITHMS))


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that can verify, with the algorithms that it is for."""

    key_id: str | None
    algorithms: frozenset[str]
    material: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token's own words, of which nothing is known to be true."""

    text: str = field(repr=False)
    algorithm: str
    key_id: str | None
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def issuer(self) -> str:
        """Whose the token says it is; empty where it does not say."""
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else ""


def parse(text: str) -> Unverified:
    """Return what a token says. Raises ProofError where it is no signed JWT that could be verified here."""
    if len(text) > MAX_TOKEN_CHARACTERS or not _COMPACT.fullmatch(text):
        raise ProofError(ProofFailure.MALFORMED)
    header, claims = (_object(part) for part in text.split(".")[:2])
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALL_ALGORITHMS or "crit" in header or "b64" in header:
        raise ProofError(ProofFailure.ALGORITHM_REFUSED)
    if str(header.get("typ", "JWT")).upper() != "JWT" or not isinstance(key_id, str | None):
        raise ProofError(ProofFailure.MALFORMED)
    return Unverified(text, algorithm, key_id, claims)


def verify(token: Unverified, key: PublicKey, algorithms: frozenset[str]) -> Mapping[str, Any]:
    """Return the claims that the key's owner signed. Raises ProofError."""
    if token.algorithm not in key.algorithms & algorithms:
        raise ProofError(ProofFailure.ALGORITHM_REFUSED)
    try:
        _JWS.decode_complete(token.text, key.material, algorithms=[token.algorithm])
    except PyJWTError:
        raise ProofError(ProofFailure.BAD_SIGNATURE) from None
    return token.claims


def check_times(claims: Mapping[str, Any], now: datetime, max_age_seconds: float) -> None:
    """Hold ``exp`` and ``iat``, which must be there, and ``nbf`` against the clock (RFC 7519, 4.1).

    Raises ProofError, whose text says which of them it is: that is the token's own business.
    """
    seconds = now.timestamp()
    expires, issued = _number(claims, "exp"), _number(claims, "iat")
    not_before = _number(claims, "nbf") if "nbf" in claims else issued
    if seconds >= expires + LEEWAY_SECONDS:
        raise ProofError(ProofFailure.EXPIRED, "The token has expired (exp). Fetch a new one from its issuer.")
    if max(issued, not_before) > seconds + LEEWAY_SECONDS:
        raise ProofError(ProofFailure.NOT_YET_VALID, "The token is from the future (iat, nbf): a clock is wrong.")
    if seconds - issued > max_age_seconds + LEEWAY_SECONDS:
        raise ProofError(ProofFailure.EXPIRED, f"The token is older than {max_age_seconds:g} s (iat).")


def public_key(jwk: Mapping[str, Any]) -> PublicKey | None:
    """Return a key of a JWK set (RFC 7517), or None where it is not one to verify signatures with."""
    kind = str(jwk.get("kty"))
    usable = ALGORITHMS.get((kind, "" if kind == "RSA" else str(jwk.get("crv"))), frozenset())
    if "alg" in jwk:
        usable &= {str(jwk["alg"])}
    key_id = jwk.get("kid")
    if not usable or jwk.get("use", "sig") != "sig" or not isinstance(key_id, str | None):
        return None
    try:
        material = jwt.PyJWK(dict(jwk), min(usable)).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if isinstance(material, RSAPublicKey) and material.key_size not in RSA_BITS:
        return None
    return PublicKey(key_id, usable, material) if hasattr(material, "verify") else None


def read_key_set(data: bytes) -> tuple[PublicKey, ...]:
    """Return the usable keys of a JWK set. Raises ValueError where there are none, or too many."""
    document = json.loads(data)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError(f"it is no JWK set of at most {MAX_KEYS} keys")
    usable = tuple(key for jwk in keys if isinstance(jwk, dict) and (key := public_key(jwk)) is not None)
    if not usable:
        raise ValueError("it holds no key that can verify signatures")
    return usable


def _object(part: str) -> dict[str, Any]:
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        document = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
    except (binascii.Error, ValueError, RecursionError):
        raise ProofError(ProofFailure.MALFORMED) from None
    if not isinstance(document, dict):
        raise ProofError(ProofFailure.MALFORMED)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name is there twice")
    return document


def _refuse(_constant: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:  # noqa: PLR2004 - year 5138
        raise ProofError(ProofFailure.MALFORMED, f"The token's {name} is missing or not a number.")
    return value
