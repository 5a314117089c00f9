"""The caller's id and secret, from HTTP Basic (RFC 7617), form-decoded as RFC 6749 section 2.3.1 says."""

import base64
import binascii
from collections.abc import Sequence
from urllib.parse import unquote_plus

from broker.errors import ProofFailure

MAX_HEADER_CHARACTERS = 1024


def read_basic(headers: Sequence[str]) -> tuple[str, str] | ProofFailure:
    """Return id and secret, or what is wrong with the Authorization headers of a request: there is exactly one."""
    if not headers:
        return ProofFailure.MISSING
    if len(headers) > 1:
        return ProofFailure.MALFORMED
    header = headers[0]
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(header) > MAX_HEADER_CHARACTERS:
        return ProofFailure.MALFORMED
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return ProofFailure.MALFORMED
    if not colon:
        return ProofFailure.MALFORMED
    return _form_decoded(user), _form_decoded(password)


def _form_decoded(text: str) -> str:
    return unquote_plus(text) if "%" in text or "+" in text else text
