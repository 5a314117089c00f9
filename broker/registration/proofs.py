"""What proves a client, as it stands in a TokenClient: strictly, like the rest of it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from broker.model.client import DNS_LABEL, DNS_SUBDOMAIN, Proofs
from broker.model.proof import AccountRule, CertificateRule, KeyRule, OidcRule


def _label(value: str) -> str:
    if not DNS_LABEL.fullmatch(value):
        raise ValueError("is not a DNS label")
    return value


def _subdomain(value: str) -> str:
    if not DNS_SUBDOMAIN.fullmatch(value):
        raise ValueError("is not a DNS subdomain")
    return value


Label = Annotated[str, AfterValidator(_label)]
Subdomain = Annotated[str, AfterValidator(_subdomain)]

_DNS_NAME = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_ClaimName = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_./:-]*$")]
_ClaimValue = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^*]+$")]
_Base64 = Annotated[str, Field(max_length=2048, pattern=r"^[A-Za-z0-9_-]+$")]
_ABOUT_THE_TOKEN = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
"""Claims that say nothing about whom a JWT is for."""


class Strict(BaseModel):
    """A part of a TokenClient: a field that this version does not know may be a restriction, so it is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _ClientSecret(Strict):
    digests: list[Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]] = Field(min_length=1, max_length=2)


class _Oidc(Strict):
    issuer: Annotated[str, Field(max_length=512, pattern=r"^https://[!-~]+$")]
    audience: Annotated[str, Field(max_length=256, pattern=r"^[!-~]+$")] | None = None
    claims: dict[_ClaimName, Annotated[list[_ClaimValue], Field(min_length=1, max_length=16)]] = Field(
        min_length=1, max_length=16
    )


class _Account(Strict):
    namespace: Label
    name: Subdomain
    uid: Annotated[str, Field(max_length=64, pattern=r"^[0-9A-Za-z-]+$")]


class _Jwk(Strict):
    kty: Literal["RSA", "EC", "OKP"]
    kid: Annotated[str, Field(min_length=1, max_length=128)]
    alg: Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    use: Literal["sig"] = "sig"
    crv: Literal["P-256", "P-384", "P-521", "Ed25519"] | None = None
    n: _Base64 | None = None
    e: _Base64 | None = None
    x: _Base64 | None = None
    y: _Base64 | None = None


class _Jwks(Strict):
    keys: list[_Jwk] = Field(min_length=1, max_length=4)


class _PublicKeys(Strict):
    jwks: _Jwks


class _Certificate(Strict):
    sha256: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] | None = Field(None, min_length=1, max_length=4)
    dnsName: Annotated[str, Field(max_length=253, pattern=_DNS_NAME)] | None = None  # noqa: N815 - as above


class Authentication(Strict):
    """One entry of ``spec.authentication``."""

    clientSecret: _ClientSecret | None = None  # noqa: N815 - the resource's own spelling
    oidc: _Oidc | None = None
    serviceAccount: _Account | None = None  # noqa: N815 - as above
    publicKeys: _PublicKeys | None = None  # noqa: N815 - as above
    certificate: _Certificate | None = None


def read_proofs(authentication: list[Authentication]) -> Proofs:
    """Return what proves the client. Raises ValueError for what the schema would refuse too."""
    for entry in authentication:
        if len(entry.model_fields_set) != 1:
            raise ValueError("each entry of authentication is one kind of proof")
    secrets = [entry.clientSecret for entry in authentication if entry.clientSecret]
    keys = [entry.publicKeys for entry in authentication if entry.publicKeys]
    if len(secrets) > 1 or len(keys) > 1:
        raise ValueError("two clientSecret or publicKeys proofs: one has room for all digests or keys")
    digests = [digest for proof in secrets for digest in proof.digests]
    if len(set(digests)) != len(digests):
        raise ValueError("a digest is there twice")
    jwks = [jwk for proof in keys for jwk in proof.jwks.keys]
    if len({jwk.kid for jwk in jwks}) != len(jwks):
        raise ValueError("two keys have the same kid")
    return Proofs(
        secret_digests=tuple(bytes.fromhex(digest.removeprefix("sha256:")) for digest in digests),
        oidc=tuple(_oidc(entry.oidc) for entry in authentication if entry.oidc),
        accounts=tuple(
            AccountRule(entry.serviceAccount.namespace, entry.serviceAccount.name, entry.serviceAccount.uid)
            for entry in authentication
            if entry.serviceAccount
        ),
        keys=tuple(KeyRule(jwk.model_dump(exclude_none=True)) for jwk in jwks),
        certificates=tuple(_certificate(entry.certificate) for entry in authentication if entry.certificate),
    )


def _oidc(proof: _Oidc) -> OidcRule:
    if not proof.claims.keys().isdisjoint(_ABOUT_THE_TOKEN):
        raise ValueError(f"oidc.claims: {', '.join(sorted(_ABOUT_THE_TOKEN))} do not say who the caller is")
    return OidcRule(proof.issuer, proof.audience, {name: tuple(values) for name, values in proof.claims.items()})


def _certificate(proof: _Certificate) -> CertificateRule:
    if (proof.sha256 is None) == (proof.dnsName is None):
        raise ValueError("a certificate is known by its sha256 or by its dnsName")
    if proof.sha256 is not None and len(set(proof.sha256)) != len(proof.sha256):
        raise ValueError("a certificate is there twice")
    return CertificateRule(tuple(bytes.fromhex(digest) for digest in proof.sha256 or ()), proof.dnsName)
