"""Client secrets: ``tbs_``, 43 random characters and a checksum of 6, together 53 characters.

The prefix and the checksum let secret scanners recognise one, and let the broker turn away anything else
before it hashes. A secret carries 256 random bits, so a plain SHA-256 of it is as good as a slow hash.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib

from broker.model.sensitive import Sensitive

_PREFIX = "tbs_"
_RANDOM_BYTES = 32
_CHECKED = len(_PREFIX) + 43
_FORMAT = re.compile(r"tbs_[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}", re.ASCII)
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PAIRS = tuple(high + low for high in _BASE62 for low in _BASE62)
_NOBODY = bytes(hashlib.sha256().digest_size)


def generate() -> Sensitive:
    """Return a new secret of 256 random bits."""
    checked = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return Sensitive(checked + _checksum(checked))


def well_formed(text: str) -> bool:
    """Tell, without hashing, whether a text can be a secret at all: its shape and its checksum are right."""
    return _FORMAT.fullmatch(text) is not None and _checksum(text[:_CHECKED]) == text[_CHECKED:]


def digest(secret: str) -> bytes:
    """Return the SHA-256 digest, 32 bytes, of a well-formed secret: all that is ever stored of it."""
    return hashlib.sha256(secret.encode()).digest()


def format_digest(value: bytes) -> str:
    """Return a digest as TokenClients carry it: ``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{value.hex()}"


def matches(secret: str, digests: tuple[bytes, ...]) -> bool:
    """Tell whether one of at most two digests is that of a well-formed secret.

    Two comparisons are made however many digests there are, so that an unknown client, one without secrets
    and a wrong secret cost the same. Nobody knows a text whose digest is all zeros, which fills the gaps.
    """
    given = digest(secret)
    first, second = (*digests, _NOBODY, _NOBODY)[:2]
    return hmac.compare_digest(given, first) | hmac.compare_digest(given, second)


def _checksum(text: str) -> str:
    """Return the CRC-32 of a text as 6 digits in base 62 (0-9, A-Z, a-z), the highest first."""
    rest, low = divmod(zlib.crc32(text.encode()), 62**2)
    high, middle = divmod(rest, 62**2)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]
