"""What the operator lets count, and what the TokenClient's status says of the rest."""

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.model.client import Client, Proofs, VaultCopy
from broker.model.proof import AccountRule, CertificateRule, KeyRule, OidcRule
from broker.model.proof_policy import ProofPolicy, oidc_problem, proof_problems, usable
from broker.model.status import Facts, GrantFacts, conditions
from tests.support.rotation import client, grant

ISSUER = "https://issuer.example"
URL = "https://broker.example"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULE = OidcRule(ISSUER, None, {"repository_id": ("1",)})
OIDC = Proofs(oidc=(RULE,))
ACCOUNT = Proofs(accounts=(AccountRule("ci", "runner", "u"),))
KEYS = Proofs(keys=(KeyRule({"kid": "k"}),))
CERTIFICATE = Proofs(certificates=(CertificateRule((), "a.example"),))
ALL = ProofPolicy(URL, {ISSUER: frozenset()}, frozenset({"https://kubernetes"}), certificates=True)


@pytest.mark.parametrize("proofs", [OIDC, ACCOUNT, KEYS, CERTIFICATE], ids=["oidc", "account", "keys", "certificate"])
def test_without_configuration_only_secrets_count(proofs: Proofs) -> None:
    """Each other kind needs the operator's word, and its absence is told in words of its own."""
    assert not usable(proofs, ProofPolicy())
    assert len(proof_problems(proofs, ProofPolicy())) == 1
    assert usable(proofs, ALL)
    assert proof_problems(proofs, ALL) == ()


def test_mandatory_claims_have_to_be_named() -> None:
    """The operator's word is for every client: environment alone would be anybody's."""
    policy = ProofPolicy(URL, {ISSUER: frozenset({"repository_id", "environment"})})

    assert "environment" in (oidc_problem(RULE, policy) or "")
    assert "repository_id" not in (oidc_problem(RULE, policy) or "")


@pytest.mark.parametrize(
    ("rule", "policy", "words"),
    [
        (OidcRule("https://other.example", None, {}), ALL, "not among the issuers"),
        (RULE, ProofPolicy(None, {ISSUER: frozenset()}), "name an audience"),
        (OidcRule(ISSUER, "https://kubernetes", {}), ALL, "not made for the broker"),
    ],
)
def test_a_rule_that_can_never_count(rule: OidcRule, policy: ProofPolicy, words: str) -> None:
    """Another issuer, nobody to be for, and tokens that every pod has."""
    assert words in (oidc_problem(rule, policy) or "")


def test_an_audience_of_its_own_needs_no_public_url() -> None:
    """The TokenClient says whom the JWT is for."""
    assert oidc_problem(OidcRule(ISSUER, "mine", {}), ProofPolicy(None, {ISSUER: frozenset()})) is None


def ready(proofs: Proofs, policy: ProofPolicy, **changes: Any) -> dict[str, tuple[str, str]]:
    """Return the conditions of a client that is right otherwise."""
    made = client(**changes)
    made = Client(made.id, made.uid, 1, "", None, False, proofs, made.grants)  # noqa: FBT003 - positional value
    facts = Facts(1, made, None, {one.name: GrantFacts(rehearsed=True) for one in made.grants}, policy)
    return {condition.type: (condition.status, condition.reason) for condition in conditions(facts, NOW)}


def test_a_client_that_nobody_can_be_is_not_ready() -> None:
    """All its proofs are refused, and it is not in Vault."""
    said = ready(OIDC, ProofPolicy(), grants=(grant(vault=None),))

    assert said["Ready"] == said["ProofsAccepted"] == ("False", "ProofNotAccepted")


@pytest.mark.parametrize(
    ("proofs", "vault"),
    [(Proofs(secret_digests=(bytes(32),), oidc=(RULE,)), None), (OIDC, VaultCopy(3600, 1200))],
    ids=["a secret", "Vault"],
)
def test_a_client_with_another_way_is_ready(proofs: Proofs, vault: VaultCopy | None) -> None:
    """The condition says what does not count; the rest goes on."""
    said = ready(proofs, ProofPolicy(), grants=(grant(vault=vault),))

    assert said["ProofsAccepted"] == ("False", "ProofNotAccepted")
    assert said["Ready"] == ("True", "Ready")


def test_secrets_alone_need_no_condition() -> None:
    """There is nothing about them that the operator could forbid."""
    assert "ProofsAccepted" not in ready(Proofs(secret_digests=(bytes(32),)), ALL)
    assert ready(OIDC, ALL)["ProofsAccepted"] == ("True", "Accepted")
