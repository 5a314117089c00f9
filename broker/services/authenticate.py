"""Find out whether the caller is the client that it names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError, ProofError, ProofFailure, Reason
from broker.model.account import account_user
from broker.model.client import Client, ClientId
from broker.model.limits import NamespaceLimits
from broker.model.proof import (
    AssertionProof,
    BearerProof,
    CertificateProof,
    CertificateRule,
    Proof,
    ProvedBy,
    SecretProof,
    VerifiedAccount,
    VerifiedJwt,
    mismatches,
)
from broker.model.proof_policy import ProofPolicy, oidc_problem
from broker.ports import Clock, Registry


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: which client it is, and how it proved that."""

    client: Client
    proved_by: ProvedBy


class AuthenticationMetrics(Protocol):
    """What is told about proofs."""

    def proof_failed(self, failure: ProofFailure) -> None:
        """Count a proof that failed."""


class SecretCheck(Protocol):
    """What is needed of :mod:`broker.identity.secret`."""

    def well_formed(self, text: str) -> bool:
        """Tell, without hashing, whether a text can be a secret at all."""

    def matches(self, secret: str, digests: tuple[bytes, ...]) -> bool:
        """Tell whether one of the digests is the secret's; the work does not depend on the digests."""


class BearerCheck(Protocol):
    """What is needed of :mod:`broker.identity.bearer`."""

    async def verify(self, text: str) -> VerifiedJwt | VerifiedAccount:
        """Return what a JWT proves, whoever the client is. Raises ProofError."""


class AssertionCheck(Protocol):
    """What is needed of :mod:`broker.identity.assertion`."""

    def claimed(self, text: str) -> str:
        """Return which client an assertion says that it is of, unverified. Raises ProofError."""

    def verify(self, text: str, client: Client | None) -> None:
        """Accept an assertion of a client once. Raises ProofError."""


class FailureLimit(Protocol):
    """What is needed of :mod:`broker.services.failure_limit`."""

    def failed(self, client: str, remote: str) -> None:
        """Count a failed proof. Raises BrokerError(too_many_proofs) where there were too many."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How each kind of proof is checked, and what the operator lets count."""

    secrets: SecretCheck
    bearers: BearerCheck
    assertions: AssertionCheck | None
    policy: ProofPolicy


class Authenticator:
    """Checks proofs: first the proof, then what the client accepts.

    An unknown client, one that does not accept this kind of proof and a wrong proof take the same path and get
    the same answer, so that strangers learn nothing about which clients exist. A right proof always counts,
    however many wrong ones came before.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        checks: Checks,
        limit: FailureLimit,
        metrics: AuthenticationMetrics,
        clock: Clock,
        limits: Callable[[str], NamespaceLimits],
        near_miss: Callable[[ClientId, ProofFailure], None],
    ) -> None:
        self._registry = registry
        self._checks = checks
        self._limit = limit
        self._metrics = metrics
        self._clock = clock
        self._limits = limits
        self._near_miss = near_miss

    async def authenticate(self, proof: Proof, remote: str) -> Caller:
        """Return the client that proved itself. ``remote`` is the caller's address.

        Raises ProofError, too_many_proofs, or what keeps the broker from finding out: registry_stale,
        issuer_unavailable, kubernetes_unavailable, kubernetes_timeout.
        """
        try:
            caller = await self._by(proof)
            self._check_kind(caller)
        except ProofError as error:
            raise self.failed(error, proof.client, remote) from None
        return caller

    def _check_kind(self, caller: Caller) -> None:
        kinds = self._limits(caller.client.id.namespace).proofs
        if kinds is not None and caller.proved_by.method not in kinds:
            raise ProofError(ProofFailure.NOT_ACCEPTED)

    async def _by(self, proof: Proof) -> Caller:
        match proof:
            case SecretProof():
                return self._by_secret(proof)
            case BearerProof():
                return await self._by_bearer(proof)
            case AssertionProof():
                return self._by_assertion(proof)
            case CertificateProof():
                return self._by_certificate(proof)

    def failed(self, error: ProofError, client: str, remote: str) -> BrokerError:
        """Count a failed proof and return what the caller is told: the failure, or that there were too many.

        A proof of nobody in particular is no guess, and not limited.
        """
        self._metrics.proof_failed(error.failure)
        try:
            if client:
                self._limit.failed(client, remote)
        except BrokerError as too_many:
            return too_many
        return error

    def _by_secret(self, proof: SecretProof) -> Caller:
        secret = proof.secret.reveal()
        if not self._checks.secrets.well_formed(secret):
            raise ProofError(ProofFailure.MALFORMED)
        known = self._find(proof.client)
        matched = self._checks.secrets.matches(secret, known.proofs.secret_digests if known else ())
        if known is None:
            raise ProofError(ProofFailure.UNKNOWN_CLIENT)
        if not matched:
            raise ProofError(ProofFailure.WRONG_SECRET)
        return Caller(known, ProvedBy("clientSecret", ""))

    async def _by_bearer(self, proof: BearerProof) -> Caller:
        verified = await self._checks.bearers.verify(proof.token.reveal())
        known = self._find(proof.client)
        if known is None:
            raise ProofError(ProofFailure.UNKNOWN_CLIENT)
        if isinstance(verified, VerifiedAccount):
            return self._as_account(known, verified)
        return self._as_subject(known, verified)

    def _as_account(self, client: Client, account: VerifiedAccount) -> Caller:
        named = (account.namespace, account.name)
        uids = [rule.uid for rule in client.proofs.accounts if (rule.namespace, rule.name) == named]
        if not uids:
            raise ProofError(ProofFailure.NOT_ACCEPTED)
        if account.uid not in uids:
            self._near_miss(client.id, ProofFailure.ACCOUNT_REPLACED)
            raise ProofError(
                ProofFailure.ACCOUNT_REPLACED,
                "The ServiceAccount was deleted and made again since the client was registered: register its new uid.",
                Reason.PROOF_ACCOUNT_REPLACED,
            )
        return Caller(client, ProvedBy("serviceAccount", account_user(account.namespace, account.name), account.uid))

    def _as_subject(self, client: Client, token: VerifiedJwt) -> Caller:
        policy = self._checks.policy
        of_issuer = (rule for rule in client.proofs.oidc if rule.issuer == token.issuer)
        rules = [rule for rule in of_issuer if oidc_problem(rule, policy) is None]
        if not rules:
            raise ProofError(ProofFailure.NOT_ACCEPTED)
        wrong = min((mismatches(rule, token, policy.audience) for rule in rules), key=len)
        if wrong:
            self._near_miss(client.id, ProofFailure.CLAIMS_MISMATCH)
            names = ", ".join(sorted(wrong))
            raise ProofError(
                ProofFailure.CLAIMS_MISMATCH,
                f"The token is genuine, but the client does not accept the value of these claims: {names}.",
                Reason.PROOF_CLAIMS_MISMATCH,
            )
        return Caller(client, ProvedBy("oidc", token.subject, token.issuer))

    def _by_assertion(self, proof: AssertionProof) -> Caller:
        if self._checks.assertions is None:
            raise ProofError(ProofFailure.NOT_ACCEPTED)
        known = self._find(proof.client or self._checks.assertions.claimed(proof.assertion.reveal()))
        self._checks.assertions.verify(proof.assertion.reveal(), known)
        if known is None:
            raise ProofError(ProofFailure.UNKNOWN_CLIENT)
        return Caller(known, ProvedBy("publicKeys", str(known.id)))

    def _by_certificate(self, proof: CertificateProof) -> Caller:
        known = self._find(proof.client)
        if proof.not_after <= self._clock.now():
            raise ProofError(ProofFailure.EXPIRED)
        if known is None:
            raise ProofError(ProofFailure.UNKNOWN_CLIENT)
        if not any(_accepts(rule, proof) for rule in known.proofs.certificates):
            raise ProofError(ProofFailure.WRONG_CERTIFICATE)
        return Caller(known, ProvedBy("certificate", proof.sha256.hex()))

    def _find(self, text: str) -> Client | None:
        client_id = ClientId.parse(text)
        # A made-up id is looked up like any other, so that a stale registry answers both alike.
        registration = self._registry.get(client_id or ClientId("", ""))
        return registration.client if registration and not registration.deleting else None


def _accepts(rule: CertificateRule, proof: CertificateProof) -> bool:
    return proof.sha256 in rule.sha256 or (rule.dns_name is not None and rule.dns_name in proof.dns_names)
