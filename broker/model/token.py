"""What is asked of the API server, and what it answered."""

from dataclasses import dataclass, field
from datetime import datetime

from broker.model.sensitive import Sensitive


@dataclass(frozen=True, slots=True)
class Anchor:
    """The Secret without data that a token is bound to: when it is deleted, the API server refuses the token."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """One TokenRequest. ``ttl_seconds`` is at least 600; the API server may shorten it."""

    namespace: str
    service_account: str
    audience: str
    ttl_seconds: int
    anchor: Anchor

    @property
    def subject(self) -> str:
        """The user name under which the API server knows the token's bearer."""
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token as the API server issued it. ``jti`` is what its audit log calls the credential's id."""

    value: Sensitive
    jti: str
    issued_at: datetime
    expires_at: datetime
    sha256: str = field(repr=False)

    @property
    def granted_seconds(self) -> int:
        """How long the token lives, as issued."""
        return round((self.expires_at - self.issued_at).total_seconds())
