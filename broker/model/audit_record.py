"""What is written down: each token that was handed out, each refusal, and each end. Never a token."""

from dataclasses import dataclass
from datetime import datetime

from broker.model.client import ClientId
from broker.model.proof import ProvedBy


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a token's story begins, for the audit record: which request, whose, and how he proved himself.

    ``remote`` is the caller's address. Both it and ``proved_by`` are empty where nobody asked: the broker itself
    replaces copies in Vault.
    """

    request_id: str
    remote: str = ""
    proved_by: ProvedBy | None = None


@dataclass(frozen=True, slots=True)
class Issuance:
    """The audit record of one token handed out (or put into Vault). It never holds the token.

    ``id`` is what the token is revoked by, where it has an end of its own; else it is its ``jti``. ``reused``: it was
    handed out before, and ``granted_seconds`` is what was left of its life.
    """

    at: datetime
    origin: Origin
    client: ClientId
    client_uid: str
    grant: str
    subject: str
    audience: str
    requested_seconds: int
    granted_seconds: int
    expires_at: datetime
    id: str
    jti: str
    token_sha256: str
    delivery: str
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Revoked:
    """The audit record of tokens that were ended. ``id`` is that of one token; empty for all of a grant."""

    at: datetime
    origin: Origin
    client: ClientId
    grant: str
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """The audit record of a refusal after authentication."""

    at: datetime
    origin: Origin
    client: ClientId
    grant: str
    reason: str
