"""Every way in which the broker refuses or fails, each with one word that is the same everywhere.

The word of a :class:`Reason` stands in the problem document, in the log, in the metric's label and in
``docs/errors.md``; a test compares them.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a request was refused or could not be served."""

    # The caller is not, or not any more, somebody.
    INVALID_CLIENT = "invalid_client"
    CLIENT_SUSPENDED = "client_suspended"
    CLIENT_EXPIRED = "client_expired"
    PROOF_CLAIMS_MISMATCH = "proof_claims_mismatch"
    PROOF_ACCOUNT_REPLACED = "proof_account_replaced"
    TOO_MANY_PROOFS = "too_many_proofs"
    # The caller may not have what it asks for.
    GRANT_REQUIRED = "grant_required"
    GRANT_UNKNOWN = "grant_unknown"
    GRANT_FORBIDDEN = "grant_forbidden"
    AUDIENCE_NOT_ALLOWED = "audience_not_allowed"
    TTL_OUT_OF_RANGE = "ttl_out_of_range"
    DELIVERY_NOT_CONFIGURED = "delivery_not_configured"
    LIMITS_EXCEEDED = "limits_exceeded"
    ACCOUNT_TOO_STRONG = "account_too_strong"
    ACCESS_NOT_AS_DECLARED = "access_not_as_declared"
    NOT_INDIVIDUALLY_REVOCABLE = "not_individually_revocable"
    TOO_MANY_TOKENS = "too_many_tokens"
    RATE_LIMITED = "rate_limited"
    # The request itself is wrong.
    INVALID_REQUEST = "invalid_request"
    GRANT_TYPE_UNSUPPORTED = "grant_type_unsupported"
    BODY_TOO_LARGE = "body_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    ROUTE_UNKNOWN = "route_unknown"
    # The cluster says no.
    SERVICE_ACCOUNT_MISSING = "service_account_missing"
    BROKER_NOT_AUTHORIZED = "broker_not_authorized"
    ANCHOR_MISSING = "anchor_missing"
    # A neighbour, or the broker itself, cannot.
    OVERLOADED = "overloaded"
    KUBERNETES_UNAVAILABLE = "kubernetes_unavailable"
    KUBERNETES_TIMEOUT = "kubernetes_timeout"
    KUBERNETES_REJECTED = "kubernetes_rejected"
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    REGISTRY_STALE = "registry_stale"
    POLICY_MISSING = "policy_missing"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    VAULT_UNAVAILABLE = "vault_unavailable"
    VAULT_DENIED = "vault_denied"
    VAULT_PATH_TAKEN = "vault_path_taken"
    VAULT_WRITE_CONFLICT = "vault_write_conflict"
    INTERNAL_ERROR = "internal_error"


class ProofFailure(StrEnum):
    """Why a proof failed: counted and logged. The caller is told what is wrong with his own JWT, nothing else."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_CLIENT = "unknown_client"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a reason, not a secret
    ALGORITHM_REFUSED = "algorithm_refused"
    UNKNOWN_ISSUER = "unknown_issuer"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_AUDIENCE = "wrong_audience"
    ISSUER_CLAIMS_MISMATCH = "issuer_claims_mismatch"
    CLAIMS_MISMATCH = "claims_mismatch"
    REPLAYED = "replayed"
    ACCOUNT_GONE = "account_gone"
    ACCOUNT_REPLACED = "account_replaced"
    WRONG_CERTIFICATE = "wrong_certificate"
    NOT_ACCEPTED = "not_accepted"


@dataclass(frozen=True, slots=True)
class Limits:
    """What would have been accepted; part of a TTL or audience refusal."""

    min_ttl_seconds: int
    max_ttl_seconds: int
    audiences: tuple[str, ...]


class BrokerError(Exception):
    """A refusal or failure with its reason.

    ``detail`` is for the caller and never names other clients, tokens or what only operators may know;
    ``operator_detail`` is for the log and the resource's condition and says what to do.
    ``retry_after`` is in seconds; None where trying again does not help. ``allow`` lists the methods that a
    resource answers, where the method was wrong.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        operator_detail: str = "",
        retry_after: int | None = None,
        limits: Limits | None = None,
        allow: str = "",
    ) -> None:
        super().__init__(f"{reason}: {operator_detail or detail}")
        self.reason = reason
        self.detail = detail
        self.operator_detail = operator_detail or detail
        self.retry_after = retry_after
        self.limits = limits
        self.allow = allow


def raise_if(error: BrokerError | None) -> None:
    """Raise an error where there is one, which the caller has no name for.

    Its traceback has the frames that it goes through, and from Python 3.12 on those lead to all that wait for them. One
    that is named there would keep itself, and all that they hold, until garbage is collected, which is seldom
    (docs/performance.md). For the same reason, what is put aside is a :class:`Fault`. Raises BrokerError: the error.
    """
    try:
        if error is not None:
            raise error
    finally:
        del error


class ProofError(BrokerError):
    """The caller did not prove to be the client that it names.

    ``detail`` is what to do about it, where that tells nothing about which clients exist.
    """

    def __init__(self, failure: ProofFailure, detail: str = "", reason: Reason = Reason.INVALID_CLIENT) -> None:
        super().__init__(
            reason,
            detail or "The client could not be authenticated. Send its id (namespace/name) with its proof.",
            operator_detail=f"authentication failed: {failure}",
        )
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure kept as a value: for status conditions, metrics and backoff."""

    reason: Reason
    message: str = field(repr=False)
    detail: str = field(default="", repr=False)
    """The caller's wording, where there is one."""
    retry_after: int | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, error: BrokerError) -> "Fault":
        """Return the fault that an error stands for, with both wordings and when to try again."""
        return cls(error.reason, error.operator_detail, error.detail, error.retry_after)

    def error(self) -> BrokerError:
        """Return the error that it stands for, to be raised again."""
        return BrokerError(
            self.reason, self.detail or self.message, operator_detail=self.message, retry_after=self.retry_after
        )
