"""What is asked of the API server, and what it answered."""

from dataclasses import dataclass, field
from datetime import datetime

from broker.model.account import account_user
from broker.model.sensitive import Sensitive


@dataclass(frozen=True, slots=True)
class Anchor:
    """The Secret without data that a token is bound to: when it is deleted, the API server refuses the token."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """One TokenRequest. ``ttl_seconds`` is at least 600; the API server may shorten it.

    ``anchor`` is None for a token that nothing ends early. ``account_uid`` is that of the only ServiceAccount of the
    name that will do; empty where any will.
    """

    namespace: str
    service_account: str
    audience: str
    ttl_seconds: int
    anchor: Anchor | None
    account_uid: str = ""

    @property
    def subject(self) -> str:
        """The user name under which the API server knows the token's bearer."""
        return account_user(self.namespace, self.service_account)


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token as the API server issued it. ``jti`` is what its audit log calls the credential's id.

    ``account_uid`` is the UID of the ServiceAccount whose it is.
    """

    value: Sensitive
    jti: str
    issued_at: datetime
    expires_at: datetime
    sha256: str = field(repr=False)
    account_uid: str = ""

    @property
    def granted_seconds(self) -> int:
        """How long the token lives, as issued."""
        return round((self.expires_at - self.issued_at).total_seconds())
