"""Which proofs count for which client, with checks that always say the same."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.errors import ProofError, ProofFailure, Reason
from broker.identity import secret
from broker.metrics.counted import Metrics
from broker.model.client import Client, ClientId, Proofs
from broker.model.limits import NamespaceLimits
from broker.model.proof import (
    AccountRule,
    AssertionProof,
    BearerProof,
    CertificateProof,
    CertificateRule,
    OidcRule,
    Proof,
    ProvedBy,
    VerifiedAccount,
    VerifiedJwt,
)
from broker.model.proof_policy import ProofPolicy
from broker.model.sensitive import Sensitive
from broker.services.authenticate import Authenticator, Checks
from broker.services.failure_limit import FailureLimit
from tests.support.rotation import FakeRegistry, client

ISSUER, URL, NAME = "https://issuer.example", "https://broker.example", "shop/reporter"
JWT = VerifiedJwt(ISSUER, {"aud": URL, "sub": "me", "repository_id": "1", "environment": "production"})
RULE = OidcRule(ISSUER, None, {"environment": ("production",)})
ACCOUNT = AccountRule("ci", "runner", "uid-1")
POLICY = ProofPolicy(URL, {ISSUER: frozenset()}, frozenset({"https://kubernetes"}), certificates=True)
SOON, DIGEST = datetime.now(UTC) + timedelta(hours=1), bytes(32)


@dataclass
class Bearers:
    """Verifies everything as the same thing."""

    verified: VerifiedJwt | VerifiedAccount

    async def verify(self, _text: str) -> VerifiedJwt | VerifiedAccount:
        """Return it."""
        return self.verified


@dataclass
class Assertions:
    """Accepts everything, as a client's own or nobody's."""

    def claimed(self, text: str) -> str:
        """Return the text: it is the name."""
        return text

    def verify(self, _text: str, _client: Client | None) -> None:
        """Accept."""


@dataclass
class Door:
    """An authenticator with one client, and the near misses that it told of."""

    proofs: Proofs
    verified: VerifiedJwt | VerifiedAccount = JWT
    policy: ProofPolicy = POLICY
    limits: NamespaceLimits = field(default_factory=NamespaceLimits)
    assertions: Assertions | None = field(default_factory=Assertions)
    missed: list[tuple[ClientId, ProofFailure]] = field(default_factory=list)

    async def knock(self, proof: Proof) -> ProvedBy | tuple[ProofFailure, Reason]:
        """Return how the caller proved himself, or why not."""
        registry, made = FakeRegistry(), client()
        registry.put(Client(made.id, made.uid, 1, "", None, False, self.proofs, made.grants))  # noqa: FBT003
        authenticator = Authenticator(
            registry=registry,
            checks=Checks(secret, Bearers(self.verified), self.assertions, self.policy),
            limit=FailureLimit(SystemClock()),
            metrics=Metrics(),
            clock=SystemClock(),
            limits=lambda _namespace: self.limits,
            near_miss=lambda *miss: self.missed.append(miss),
        )
        try:
            caller = await authenticator.authenticate(proof, "192.0.2.1")
        except ProofError as error:
            return error.failure, error.reason
        assert str(caller.client.id) == NAME
        return caller.proved_by


def bearer(name: str = NAME) -> BearerProof:
    """Return a JWT that says that it is for a client."""
    return BearerProof(name, Sensitive("x.y.z"))


async def test_a_jwt_that_one_of_the_rules_accepts() -> None:
    """The rules are alternatives."""
    other = OidcRule(ISSUER, None, {"environment": ("test",)})

    assert await Door(Proofs(oidc=(other, RULE))).knock(bearer()) == ProvedBy("oidc", "me", ISSUER)


async def test_the_nearest_rule_is_told_and_the_owner_hears_of_it() -> None:
    """The one with the fewest differences is the one that was meant."""
    far = OidcRule(ISSUER, "elsewhere", {"environment": ("test",), "repository_id": ("2",)})
    door = Door(Proofs(oidc=(far, OidcRule(ISSUER, None, {"repository_id": ("2",)}))))

    assert await door.knock(bearer()) == (ProofFailure.CLAIMS_MISMATCH, Reason.PROOF_CLAIMS_MISMATCH)
    assert door.missed == [(client().id, ProofFailure.CLAIMS_MISMATCH)]


@pytest.mark.parametrize(
    ("rule", "policy"),
    [
        (OidcRule("https://other.example", None, {}), POLICY),
        (RULE, ProofPolicy(URL, {ISSUER: frozenset({"repository_id"})})),
        (RULE, ProofPolicy(None, {ISSUER: frozenset()})),
        (OidcRule(ISSUER, "https://kubernetes", {}), POLICY),
    ],
    ids=["another issuer", "a mandatory claim is not named", "for nobody", "for the API server"],
)
async def test_a_rule_that_the_operator_does_not_let_count(rule: OidcRule, policy: ProofPolicy) -> None:
    """It is as if it were not there: nothing is told, to nobody."""
    token = VerifiedJwt(ISSUER, {**JWT.claims, "aud": rule.audience or URL})
    door = Door(Proofs(oidc=(rule,)), token, policy)

    assert await door.knock(bearer()) == (ProofFailure.NOT_ACCEPTED, Reason.INVALID_CLIENT)
    assert door.missed == []


async def test_accounts_by_name_and_uid() -> None:
    """Another name is a stranger's, another uid somebody who was made again."""
    proofs = Proofs(accounts=(ACCOUNT,))
    right = await Door(proofs, VerifiedAccount("ci", "runner", "uid-1")).knock(bearer())
    stranger = await Door(proofs, VerifiedAccount("ci", "other", "uid-1")).knock(bearer())
    again = Door(proofs, VerifiedAccount("ci", "runner", "uid-2"))

    assert right == ProvedBy("serviceAccount", "system:serviceaccount:ci:runner", "uid-1")
    assert stranger == (ProofFailure.NOT_ACCEPTED, Reason.INVALID_CLIENT)
    assert await again.knock(bearer()) == (ProofFailure.ACCOUNT_REPLACED, Reason.PROOF_ACCOUNT_REPLACED)
    assert again.missed == [(client().id, ProofFailure.ACCOUNT_REPLACED)]


@pytest.mark.parametrize("proof", [bearer("shop/nobody"), bearer(""), AssertionProof("", Sensitive("shop/nobody"))])
async def test_nobody(proof: Proof) -> None:
    """A genuine proof for a client that is not there."""
    assert await Door(Proofs(oidc=(RULE,))).knock(proof) == (ProofFailure.UNKNOWN_CLIENT, Reason.INVALID_CLIENT)


async def test_assertions_count_where_the_broker_knows_its_url() -> None:
    """Without it they could be for anybody; with it the assertion may name the client itself."""
    proof = AssertionProof("", Sensitive(NAME))

    assert await Door(Proofs()).knock(proof) == ProvedBy("publicKeys", NAME)
    assert await Door(Proofs(), assertions=None).knock(proof) == (ProofFailure.NOT_ACCEPTED, Reason.INVALID_CLIENT)


@pytest.mark.parametrize(
    ("rule", "proof", "outcome"),
    [
        (CertificateRule((DIGEST,), None), ((), SOON), "right"),
        (CertificateRule((), "a.example"), (("b.example", "a.example"), SOON), "right"),
        (CertificateRule((), "a.example"), (("b.a.example",), SOON), ProofFailure.WRONG_CERTIFICATE),
        (CertificateRule((b"x" * 32,), None), ((), SOON), ProofFailure.WRONG_CERTIFICATE),
        (CertificateRule((DIGEST,), None), ((), datetime.now(UTC)), ProofFailure.EXPIRED),
    ],
    ids=["digest", "name", "another name", "another digest", "ended on an open connection"],
)
async def test_certificates(rule: CertificateRule, proof: tuple[Any, Any], outcome: object) -> None:
    """By digest or name, while it lasts."""
    told = await Door(Proofs(certificates=(rule,))).knock(CertificateProof(NAME, DIGEST, *proof))

    assert told == (ProvedBy("certificate", DIGEST.hex()) if outcome == "right" else (outcome, Reason.INVALID_CLIENT))
