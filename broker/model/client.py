"""A registered client and what it is granted."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from broker.model.proof import AccountRule, CertificateRule, KeyRule, OidcRule
from broker.model.rate import Rate

API_GROUP = "tokenbroker.dev"
API_VERSION = f"{API_GROUP}/v1alpha1"
ROTATE_REQUESTED = f"{API_GROUP}/rotate-requested"
"""The annotation by which new versions in Vault are asked for: a time (RFC 3339)."""

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class ClientId:
    """``namespace/name`` of a TokenClient."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the id that a caller wrote, or None where it cannot be one.

        Both halves must be names that Kubernetes accepts, so no slash, dot-dot or percent sign gets further.
        """
        namespace, slash, name = text.partition("/")
        if not slash or not DNS_LABEL.fullmatch(namespace) or not DNS_SUBDOMAIN.fullmatch(name):
            return None
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class TtlRange:
    """How long tokens of a grant live, in seconds."""

    default_seconds: int
    max_seconds: int


@dataclass(frozen=True, slots=True)
class VaultCopy:
    """A current token kept in Vault; both in seconds. Readers always find at least ``renew_before`` left."""

    ttl_seconds: int
    renew_before_seconds: int


class Revocation(StrEnum):
    """What ends a token early, as the TokenClient writes it."""

    GRANT = "Grant"
    TOKEN = "Token"  # noqa: S105 - a way to revoke, not a token
    NONE = "None"


@dataclass(frozen=True, slots=True)
class Expect:
    """What the account may and may not do, each as ``kubectl auth can-i`` is asked."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """One account of the client's own namespace, and the bounds on its tokens.

    ``audiences`` lists what may be asked for, the first being the default; empty means the API server's own.
    ``reuse_seconds`` is for how long the same proof gets the same token again; at 0 each token is handed out once.
    """

    name: str
    service_account: str
    audiences: tuple[str, ...]
    ttl: TtlRange
    vault: VaultCopy | None
    revocation: Revocation = Revocation.GRANT
    expect: Expect = Expect()
    reuse_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Proofs:
    """What proves a client: any one of these. ``secret_digests`` are SHA-256 digests of 32 bytes."""

    secret_digests: tuple[bytes, ...] = ()
    oidc: tuple[OidcRule, ...] = ()
    accounts: tuple[AccountRule, ...] = ()
    keys: tuple[KeyRule, ...] = ()
    certificates: tuple[CertificateRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """A TokenClient as the registry last saw it."""

    id: ClientId
    uid: str
    generation: int
    owner: str
    not_after: datetime | None
    suspended: bool
    proofs: Proofs
    grants: tuple[Grant, ...]
    rotate_requested: datetime | None = None
    """When somebody asked last for new versions in Vault."""
    rate: Rate | None = None
    """How many tokens it may be handed out; None: as many as the operator allows."""

    def grant(self, name: str) -> Grant | None:
        """Return the grant of that name, or None."""
        return next((grant for grant in self.grants if grant.name == name), None)
