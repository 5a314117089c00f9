"""What a request brings to prove who calls: one Authorization header, or the connection's client certificate."""

import binascii
import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_plus

from aiohttp import web

from broker.errors import ProofFailure
from broker.model.proof import BearerProof, CertificateProof, Proof, SecretProof
from broker.model.sensitive import Sensitive

MAX_BASIC_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Bearer:
    """A Bearer token (RFC 6750): it proves something, but does not say for which client."""

    token: Sensitive

    def proof(self, client: str) -> Proof:
        """Return the proof for the client that the caller names."""
        return BearerProof(client, self.token)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that TLS has verified."""

    sha256: bytes
    dns_names: tuple[str, ...]
    not_after: datetime

    def proof(self, client: str) -> Proof:
        """Return the proof for the client that the caller names."""
        return CertificateProof(client, self.sha256, self.dns_names, self.not_after)


Brought = SecretProof | Bearer | Certificate | ProofFailure


def read_credentials(request: web.BaseRequest) -> Brought:
    """Return what a request brings, or what is wrong with it. A header counts before the certificate."""
    headers = request.headers.getall("Authorization", ())
    if headers:
        return read_authorization(headers)
    return client_certificate(request) or ProofFailure.MISSING


def read_authorization(headers: Sequence[str]) -> SecretProof | Bearer | ProofFailure:
    """Return what the Authorization headers of a request hold: there is exactly one."""
    if len(headers) > 1:
        return ProofFailure.MALFORMED
    scheme, _, value = headers[0].partition(" ")
    match scheme.lower():
        case "basic":
            return _basic(value)
        case "bearer":
            return Bearer(Sensitive(value))
    return ProofFailure.MALFORMED


def client_certificate(request: web.BaseRequest) -> Certificate | None:
    """Return the certificate that the caller's end of the TLS connection has shown, or None."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    der = tls.getpeercert(binary_form=True) if tls else None
    if tls is None or not der:
        return None
    said = tls.getpeercert()
    names = tuple(value for kind, value in said.get("subjectAltName", ()) if kind == "DNS")
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(said["notAfter"]), UTC)
    return Certificate(hashlib.sha256(der).digest(), names, until)


def _basic(encoded: str) -> SecretProof | ProofFailure:
    """Decode HTTP Basic (RFC 7617), whose halves are form-encoded (RFC 6749, 2.3.1)."""
    if len(encoded) > MAX_BASIC_CHARACTERS:
        return ProofFailure.MALFORMED
    try:
        user, colon, password = binascii.a2b_base64(encoded, strict_mode=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return ProofFailure.MALFORMED
    if not colon:
        return ProofFailure.MALFORMED
    return SecretProof(_form_decoded(user), Sensitive(_form_decoded(password)))


def _form_decoded(text: str) -> str:
    return unquote_plus(text) if "%" in text or "+" in text else text
