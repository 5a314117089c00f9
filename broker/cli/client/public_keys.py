"""Reads the file with a client's public keys: a JWK, a JWK set (RFC 7517), or a public key in PEM."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from broker.cli.errors import CommandError, usage
from broker.cli.manifests import Manifest
from broker.identity.jose import ALGORITHMS, public_key

_MAX_BYTES = 65536
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members that nobody but a key's owner may have (RFC 7518, 6)."""

_KEPT = ("kty", "kid", "alg", "use", "crv", "n", "e", "x", "y")
"""The members that a TokenClient carries; certificates and the like that a JWK may have prove nothing here."""

_THUMBPRINT = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


def read_public_keys(path: Path) -> Manifest:
    """Return the proof by signed assertions. Raises CommandError, loudly where the file has a private key."""
    text = _text(path)
    if "PRIVATE KEY" in text:
        raise _private(path)
    documents = [_pem(text, path)] if "-----BEGIN" in text else _json(text, path)
    if any(_PRIVATE & document.keys() for document in documents):
        raise _private(path)
    return {"publicKeys": {"jwks": {"keys": [_whole(document, path) for document in documents]}}}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise usage(f"the key file {path} cannot be read: {reason}.") from None


def _json(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    keys = document.get("keys", [document]) if isinstance(document, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise usage(f"{path} is not a JWK, a JWK set, or a public key in PEM.")
    return keys


def _pem(text: str, path: Path) -> dict[str, Any]:
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise usage(f"{path} is not a public key in PEM; `openssl pkey -in KEY -pubout` makes one.") from None
    match key:
        case RSAPublicKey():
            return RSAAlgorithm.to_jwk(key, as_dict=True)
        case EllipticCurvePublicKey():
            return ECAlgorithm.to_jwk(key, as_dict=True)
        case Ed25519PublicKey():
            return OKPAlgorithm.to_jwk(key, as_dict=True)
    raise usage(f"{path} holds a kind of key that signs no JWTs: make one of RSA, P-256 or Ed25519.")


def _whole(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a key as a TokenClient carries it: named, and for one algorithm."""
    jwk = {name: document[name] for name in _KEPT if name in document}
    jwk.setdefault("alg", _algorithm(jwk))
    if public_key(jwk) is None:
        raise usage(f"{path} holds a key that cannot verify assertions: it takes RSA of 2048 bits, P-256 or Ed25519.")
    return {"kid": _thumbprint(jwk)} | jwk


def _algorithm(jwk: dict[str, Any]) -> str:
    if jwk.get("kty") == "RSA":
        return "RS256"
    (only,) = ALGORITHMS.get((str(jwk.get("kty")), str(jwk.get("crv"))), ("none",))
    return only


def _thumbprint(jwk: dict[str, Any]) -> str:
    """Return the name of a key that has none (RFC 7638)."""
    required = {name: jwk[name] for name in _THUMBPRINT[jwk["kty"]]}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()


def _private(path: Path) -> CommandError:
    return usage(
        f"{path} holds a PRIVATE key: it belongs to the client alone, and nothing was made with it. "
        "Give the public half, and replace the key if others could read the file."
    )
