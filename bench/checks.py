"""Whether an answer is a token: the right one, signed by the API server, and never seen before."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from bench.vegeta import Hit


@dataclass(frozen=True, slots=True)
class Expected:
    """What every token of one target must be; ``extract`` takes it out of the decoded body."""

    status: int
    extract: Callable[[Any], str]
    subject: str
    audience: str


@dataclass(slots=True)
class Checker:
    """Checks answers; ``keys`` are the API server's signing keys by their ids."""

    keys: dict[str, rsa.RSAPublicKey]
    seen: set[bytes] = field(default_factory=set)

    def problem(self, hit: Hit, expected: Expected) -> str | None:
        """Return what is wrong with an answer, or None."""
        if hit.status != expected.status:
            return f"status {hit.status} {hit.error} {hit.body[:300]!r}"
        try:
            token = expected.extract(orjson.loads(hit.body))
            return self._wrong(token, expected)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"no token in {hit.body[:300]!r}: {error!r}"
        except InvalidSignature:
            return "the signature is not the API server's"

    def _wrong(self, token: str, expected: Expected) -> str | None:
        signed, _, signature = token.rpartition(".")
        header, payload = (orjson.loads(decoded(part)) for part in signed.split("."))
        self.keys[header["kid"]].verify(decoded(signature), signed.encode(), padding.PKCS1v15(), SHA256())
        if (payload["sub"], payload["aud"]) != (expected.subject, [expected.audience]):
            return f"a token for {payload['sub']} and {payload['aud']}"
        digest = hashlib.sha256(token.encode()).digest()
        if digest in self.seen:
            return "a token that was handed out before"
        self.seen.add(digest)
        return None


def signing_keys(document: Any) -> dict[str, rsa.RSAPublicKey]:
    """Return the keys of a JWKS (RFC 7517) by their ids."""
    return {
        key["kid"]: rsa.RSAPublicNumbers(_number(key["e"]), _number(key["n"])).public_key() for key in document["keys"]
    }


def decoded(part: str) -> bytes:
    """Return the bytes of unpadded base64url (RFC 7515)."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _number(part: str) -> int:
    return int.from_bytes(decoded(part), "big")
