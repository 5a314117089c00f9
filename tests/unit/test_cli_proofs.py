"""Clients without a secret: what ``client add`` prints for git, and what it refuses before anything is made."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker.identity import secret
from broker.registration.manifest import read_registration
from tests.support.command import command

ADD = ("client", "render", "ci", "-n", "shop", "--service-account", "web")
ISSUER = ("--oidc-issuer", "https://issuer.example")
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())


def _printed(*options: str) -> list[Any]:
    """Return ``spec.authentication`` of what is printed, which the broker reads without a fault."""
    ended = command(*ADD, *options)
    assert ended.code == 0, ended.stderr
    client = list(yaml.safe_load_all(ended.stdout))[-1]
    client["metadata"]["uid"] = "uid"
    registration = read_registration(client)
    assert registration.fault is None, registration.fault
    proofs: list[Any] = client["spec"]["authentication"]
    return proofs


def _pem(public: Any) -> bytes:
    pem: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem


def _file(folder: Path, content: object) -> str:
    path = folder / "key"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def test_claims_that_are_named_twice_may_have_any_value() -> None:
    """All claims count, values of one name are alternatives, and there is no secret and no audience of its own."""
    claims = ("--oidc-claim", "repository_id=1", "--oidc-claim", "environment=a=b", "--oidc-claim", "environment=c")

    assert _printed(*ISSUER, *claims) == [
        {
            "oidc": {
                "issuer": "https://issuer.example",
                "claims": {"repository_id": ["1"], "environment": ["a=b", "c"]},
            }
        }
    ]


def test_a_secret_is_made_beside_another_proof_on_request(tmp_path: Path) -> None:
    """With --secret-file, both count."""
    file = tmp_path / "secret"
    audience = ("--oidc-audience", "broker")
    first, second = _printed(*ISSUER, "--oidc-claim", "sub=x", *audience, "--secret-file", str(file))

    assert first == {"clientSecret": {"digests": [secret.format_digest(secret.digest(file.read_text()))]}}
    assert second["oidc"]["audience"] == "broker"


def test_certificates_are_taken_as_openssl_prints_their_fingerprints() -> None:
    """Colons and capitals are no difference; a DNS name is a proof of its own."""
    fingerprint = ":".join(["AB"] * 32)
    options = (
        "--certificate-sha256",
        fingerprint,
        "--certificate-sha256",
        "ab" * 32,
        "--certificate-dns",
        "ci.example",
    )

    assert _printed(*options) == [{"certificate": {"sha256": ["ab" * 32]}}, {"certificate": {"dnsName": "ci.example"}}]


def test_a_jwk_set_is_taken_with_its_names(tmp_path: Path) -> None:
    """Two keys keep their names and algorithms; members that verify nothing are left out."""
    rsa_key = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"kid": "old", "alg": "PS256", "x5t": "x"}
    ec_key = ECAlgorithm.to_jwk(P256.public_key(), as_dict=True) | {"kid": "new", "use": "sig"}
    (proof,) = _printed("--public-key", _file(tmp_path, {"keys": [rsa_key, ec_key]}))
    keys = proof["publicKeys"]["jwks"]["keys"]

    assert [(key["kid"], key["alg"]) for key in keys] == [("old", "PS256"), ("new", "ES256")]
    assert not {"x5t", "key_ops"} & {*keys[0], *keys[1]}


def test_a_key_without_a_name_gets_its_thumbprint(tmp_path: Path) -> None:
    """The example of RFC 7638, 3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
        "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
        "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
        "kEgU8awapJzKnqDKgw"
    )
    (proof,) = _printed("--public-key", _file(tmp_path, {"kty": "RSA", "n": modulus, "e": "AQAB"}))

    (key,) = proof["publicKeys"]["jwks"]["keys"]
    assert (key["kid"], key["alg"]) == ("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "RS256")


@pytest.mark.parametrize(
    ("private", "algorithm"), [(RSA, "RS256"), (P256, "ES256"), (ed25519.Ed25519PrivateKey.generate(), "EdDSA")]
)
def test_a_key_in_pem_is_taken(private: Any, algorithm: str, tmp_path: Path) -> None:
    """As openssl writes the public half."""
    (proof,) = _printed("--public-key", _file(tmp_path, _pem(private.public_key())))

    assert [key["alg"] for key in proof["publicKeys"]["jwks"]["keys"]] == [algorithm]


PRIVATE_PEM = P256.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PRIVATE_PEM, "PRIVATE key"),
        (ECAlgorithm.to_jwk(P256, as_dict=True), "PRIVATE key"),
        (
            {"keys": [ECAlgorithm.to_jwk(P256.public_key(), as_dict=True), RSAAlgorithm.to_jwk(RSA, as_dict=True)]},
            "PRI",
        ),
        ({"kty": "oct", "k": "c2VjcmV0"}, "PRIVATE key"),
        ({"keys": []}, "is not a JWK"),
        (b"ssh-ed25519 AAAA", "is not a JWK"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "not a public key in PEM"),
        (_pem(x25519.X25519PrivateKey.generate().public_key()), "signs no JWTs"),
        (_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()), "cannot verify"),  # noqa: S505 - that is it
        ({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "cannot verify"),
        ({"kty": "RSA", "alg": "HS256", "n": "AA", "e": "AQAB"}, "cannot verify"),
        (b"\xff", "it is not text"),
    ],
)
def test_a_file_without_a_usable_public_key_is_refused(content: object, words: str, tmp_path: Path) -> None:
    """A private key loudly, and nothing of the file is repeated."""
    ended = command(*ADD, "--public-key", _file(tmp_path, content))

    assert (ended.code, ended.stdout) == (2, "")
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ISSUER, "add --oidc-claim"),
        (("--oidc-claim", "a=b"), "--oidc-issuer"),
        (("--oidc-audience", "x"), "--oidc-issuer"),
        ((*ISSUER, "--oidc-claim", "environment"), "is not NAME=VALUE"),
        ((*ISSUER, "--oidc-claim", "environment="), "is not NAME=VALUE"),
        (
            (*ISSUER, "--oidc-claim", "ref=refs/*"),
            "the TokenClient would be refused: spec.authentication.0.oidc.claims",
        ),
        ((*ISSUER, "--oidc-claim", "aud=x"), "do not say who the caller is"),
        ((*ISSUER, "--oidc-claim", "a=b", "--oidc-audience", ""), "authentication.0.oidc.audience"),
        (("--oidc-issuer", "http://issuer.example", "--oidc-claim", "a=b"), "authentication.0.oidc.issuer"),
        (("--certificate-sha256", "ab"), "authentication.0.certificate.sha256"),
        (("--certificate-dns", "CI.example"), "authentication.0.certificate.dnsName"),
        (("--caller-account", "ci"), "is not NAMESPACE/NAME"),
        (("--public-key", "/nowhere"), "cannot be read"),
    ],
)
def test_a_proof_that_cannot_be_meant_exits_with_2(options: tuple[str, ...], words: str) -> None:
    """What the schema would refuse is refused before anything is made."""
    ended = command(*ADD, *options)

    assert (ended.code, ended.stdout) == (2, "")
    assert words in ended.stderr
