"""TokenClients that got past the schema are read as strictly as the schema would."""

from typing import Any

import pytest

from broker.model.client import ROTATE_REQUESTED, Proofs
from broker.model.proof import AccountRule, CertificateRule, KeyRule, OidcRule
from broker.model.rate import Rate
from broker.registration.manifest import read_registration
from tests.support.bad_specs import BAD, DIGEST, GOOD, GRANT, JWK, OTHER_DIGEST, PROOFS

UNKNOWN: list[Any] = [GOOD | {"x": 1}, GOOD | {"grants": [GRANT | {"x": 1}]}, None, [], "x", {"grants": {}}]


def _resource(spec: Any, name: str = "web") -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "uid": "u1", "generation": 3}
    return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": 2}}


@pytest.mark.parametrize("spec", BAD.values(), ids=BAD.keys())
def test_what_the_schema_would_refuse_is_no_client(spec: dict[str, Any]) -> None:
    """It is known, with its fault, and nothing of it is used."""
    read = read_registration(_resource(spec))

    assert read.client is None
    assert read.fault is not None
    assert read.fault.message.startswith("spec")


@pytest.mark.parametrize("spec", UNKNOWN)
def test_what_is_not_known_is_not_ignored(spec: Any) -> None:
    """A field of a later version may be a restriction."""
    assert read_registration(_resource(spec)).client is None


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS.keys())
def test_what_the_schema_takes_is_a_client(proof: dict[str, Any]) -> None:
    """Each kind of proof reaches the client, in a place of its own."""
    client = read_registration(_resource(GOOD | {"authentication": [proof]})).client

    assert client is not None
    proofs = client.proofs
    held = [proofs.secret_digests, proofs.oidc, proofs.accounts, proofs.keys, proofs.certificates]
    assert [len(kind) for kind in held if kind] == [1]


def test_proofs_are_read_as_written() -> None:
    """Every field of every kind."""
    claims = {"sub": ["a", "b"], "environment": ["production"]}
    oidc = {"issuer": "https://issuer.example", "audience": "us", "claims": claims}
    account = {"namespace": "ci", "name": "runner", "uid": "u-1"}
    proofs = [{"oidc": oidc}, {"serviceAccount": account}, {"publicKeys": {"jwks": {"keys": [JWK]}}}]
    named, pinned = {"certificate": {"dnsName": "a.example"}}, {"certificate": {"sha256": ["ab" * 32]}}
    client = read_registration(_resource(GOOD | {"authentication": [*proofs, named]})).client
    other = read_registration(_resource(GOOD | {"authentication": [pinned]})).client

    assert client is not None
    assert other is not None
    assert client.proofs == Proofs(
        oidc=(OidcRule("https://issuer.example", "us", {"sub": ("a", "b"), "environment": ("production",)}),),
        accounts=(AccountRule("ci", "runner", "u-1"),),
        keys=(KeyRule({**JWK, "use": "sig"}),),
        certificates=(CertificateRule((), "a.example"),),
    )
    assert other.proofs.certificates == (CertificateRule((b"\xab" * 32,), None),)


def test_fault_does_not_repeat_what_was_written() -> None:
    """Somebody may have put the secret where its digest belongs; the fault is shown in the status."""
    spec = GOOD | {"authentication": [{"clientSecret": {"digests": ["tbs_secret"]}}]}
    read = read_registration(_resource(spec))

    assert read.fault is not None
    assert "tbs_secret" not in read.fault.message


def test_defaults_are_those_of_the_schema() -> None:
    """What was sneaked in without defaults means the same as what the API server completed."""
    client = read_registration(_resource(GOOD)).client

    assert client is not None
    assert [grant.name for grant in client.grants] == ["default"]
    assert client.grants[0].ttl.default_seconds == 15 * 60
    assert client.grants[0].ttl.max_seconds == 3600
    assert client.grants[0].audiences == ()
    assert client.grants[0].reuse_seconds == 0
    assert client.rate is None
    assert not client.suspended


def test_everything_is_read() -> None:
    """Each field reaches the client."""
    spec = {
        "owner": "team",
        "notAfter": "2027-06-30T00:00:00Z",
        "suspend": True,
        "rate": {"perMinute": 600, "burst": 100},
        "authentication": [{"clientSecret": {"digests": [DIGEST, OTHER_DIGEST]}}],
        "grants": [
            {
                "name": "kept",
                "serviceAccount": {"name": "a.b"},
                "audiences": ["https://x.example/", "y"],
                "ttl": {"default": "10m", "max": "24h"},
                "reuse": "5m",
                "vault": {"ttl": "1h", "renewBefore": "1m"},
            }
        ],
    }
    read = read_registration(_resource(spec))
    client = read.client

    assert read.generation == 3
    assert read.status == {"observedGeneration": 2}
    assert client is not None
    assert (client.owner, client.suspended) == ("team", True)
    assert client.rate == Rate(600, 100)
    assert client.not_after is not None
    assert client.not_after.isoformat() == "2027-06-30T00:00:00+00:00"
    assert client.proofs.secret_digests == (bytes(32), bytes.fromhex("1" * 64))
    grant = client.grants[0]
    assert (grant.name, grant.service_account, grant.audiences) == ("kept", "a.b", ("https://x.example/", "y"))
    assert (grant.ttl.default_seconds, grant.ttl.max_seconds) == (600, 86400)
    assert grant.vault is not None
    assert grant.reuse_seconds == 300


def test_burst_is_as_many_as_in_a_minute_unless_it_says_otherwise() -> None:
    """So a client whose instances ask once a minute, all at once, gets them all."""
    client = read_registration(_resource(GOOD | {"rate": {"perMinute": 600}})).client

    assert client is not None
    assert client.rate == Rate(600, 600)


def test_copy_is_renewed_after_two_thirds_unless_it_says_otherwise() -> None:
    """A third of its life is left for readers and for a Vault that is away."""
    client = read_registration(_resource({"grants": [GRANT | {"vault": {"ttl": "3h"}}]})).client

    assert client is not None
    assert client.grants[0].vault is not None
    assert client.grants[0].vault.renew_before_seconds == 3600


@pytest.mark.parametrize("spec", [GOOD, *UNKNOWN, *BAD.values()])
def test_nothing_of_a_client_is_kept_but_what_is_read(spec: Any) -> None:
    """What else its writer puts there, up to what the API server takes, takes no memory."""
    resource = _resource(spec)
    resource["metadata"] |= {
        "resourceVersion": "7",
        "deletionTimestamp": "2026-11-24T12:00:00Z",
        "finalizers": ["tokenbroker.dev/anchors", "example.com/other"],
        "annotations": {ROTATE_REQUESTED: "2026-11-24T12:00:00Z", "large": "annotation"},
        "labels": {"large": "label"},
        "ownerReferences": [{"name": "large"}],
        "managedFields": [{"manager": "large"}],
    }
    kept = read_registration(resource)

    assert kept.finalizers == ("tokenbroker.dev/anchors", "example.com/other")
    assert "large" not in repr(kept)
