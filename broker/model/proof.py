"""What a caller brings to prove which client it is, what a client accepts, and whether the two meet. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broker.model.sensitive import Sensitive


@dataclass(frozen=True, slots=True)
class OidcRule:
    """JWTs of an issuer that the operator lists, for this audience (None: the broker's URL), with these claims.

    Each claim has the values of which one is wanted: exactly, as a string, or among a list of strings.
    """

    issuer: str
    audience: str | None
    claims: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class AccountRule:
    """A ServiceAccount of the broker's own cluster; one that was recreated under the same name is another."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class KeyRule:
    """A public key (RFC 7517) whose owner signs assertions (RFC 7523): the members of the JWK."""

    jwk: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CertificateRule:
    """A TLS client certificate, by the SHA-256 of its DER form, or by a DNS name that it carries."""

    sha256: tuple[bytes, ...]
    dns_name: str | None


@dataclass(frozen=True, slots=True)
class SecretProof:
    """The client's secret."""

    client: str
    secret: Sensitive


@dataclass(frozen=True, slots=True)
class BearerProof:
    """A JWT that somebody else issued: an OIDC issuer, or the cluster."""

    client: str
    token: Sensitive


@dataclass(frozen=True, slots=True)
class AssertionProof:
    """A JWT that the client itself signed (RFC 7523, private_key_jwt).

    ``client`` may be empty: the assertion names it, too.
    """

    client: str
    assertion: Sensitive


@dataclass(frozen=True, slots=True)
class CertificateProof:
    """The client certificate of the connection, which TLS has verified."""

    client: str
    sha256: bytes
    dns_names: tuple[str, ...]
    not_after: datetime


Proof = SecretProof | BearerProof | AssertionProof | CertificateProof


@dataclass(frozen=True, slots=True)
class VerifiedJwt:
    """A JWT of a listed issuer whose signature, times and issuer's claims are right."""

    issuer: str
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def subject(self) -> str:
        """Whom the issuer says that it is about."""
        subject = self.claims.get("sub")
        return subject if isinstance(subject, str) else ""


@dataclass(frozen=True, slots=True)
class VerifiedAccount:
    """A ServiceAccount of the cluster that the API server has just vouched for."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ProvedBy:
    """How a caller proved itself: ``method`` as in the TokenClient, ``subject`` as its issuer calls it.

    ``issuer`` is who calls it so, where that may be one of several; for an account it is the account's UID.
    """

    method: str
    subject: str
    issuer: str = ""

    @property
    def tells_apart(self) -> bool:
        """Tell whether two callers with the same proof are the same to the broker: a JWT may come without a subject."""
        return bool(self.subject) or self.method == "clientSecret"


def mismatches(rule: OidcRule, token: VerifiedJwt, default_audience: str | None) -> tuple[str, ...]:
    """Return the names of the token's claims that a rule does not accept; none where it does."""
    audience = rule.audience or default_audience
    wrong = [] if audience is not None and audience_is(token.claims, audience) else ["aud"]
    return (*wrong, *claims_mismatching(rule.claims, token.claims))


def claims_mismatching(wanted: Mapping[str, tuple[str, ...]], claims: Mapping[str, Any]) -> list[str]:
    """Return the names of claims that hold none of the wanted values; numbers and objects are never equal to one."""
    return [name for name, values in wanted.items() if not _holds(claims.get(name), values)]


def audience_is(claims: Mapping[str, Any], wanted: str) -> bool:
    """Tell whether a token is for one audience and nobody else: the string, or a list with nothing but it."""
    return claims.get("aud") in (wanted, [wanted])


def _holds(value: object, wanted: tuple[str, ...]) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value) and not set(wanted).isdisjoint(value)
    return isinstance(value, str) and value in wanted
