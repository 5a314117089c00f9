"""Which keys of a JWK set can verify, and which never do."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from broker.identity.jose import ALGORITHMS, public_key, read_key_set
from tests.support.issuer import SigningKey

RSA: dict[str, Any] = {name: value for name, value in SigningKey.create("k").jwk.items() if name != "alg"}
EC = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
OKP = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True)


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (RSA, ALGORITHMS["RSA", ""]),
        (RSA | {"alg": "PS384"}, {"PS384"}),
        ({name: value for name, value in RSA.items() if name != "use"}, ALGORITHMS["RSA", ""]),
        (EC, {"ES256"}),
        (OKP, {"EdDSA"}),
    ],
    ids=["RSA", "RSA for one algorithm", "RSA for anything", "EC", "OKP"],
)
def test_keys_that_verify(jwk: dict[str, Any], algorithms: set[str]) -> None:
    """Each for the algorithms of its kind, or the one that it names."""
    key = public_key(jwk)

    assert key is not None
    assert sorted(key.algorithms) == sorted(algorithms)


@pytest.mark.parametrize(
    "jwk",
    [
        RSA | {"use": "enc"},
        RSA | {"alg": "HS256"},
        RSA | {"alg": "RSA-OAEP"},
        RSA | {"alg": "none"},
        RSA | {"alg": 1},
        RSA | {"kid": 1},
        RSA | {"n": "!"},
        RSA | {"e": None},
        EC | {"alg": "RS256"},
        EC | {"crv": "P-384"},
        EC | {"crv": "secp256k1"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": None},
        {},
        RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True),
        ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True),
        OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True),
        RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True),  # noqa: S505 - refused
    ],
    ids=lambda jwk: "+".join(f"{name}={str(value)[:9]}" for name, value in jwk.items())[:60] or "empty",
)
def test_keys_that_never_verify(jwk: dict[str, Any]) -> None:
    """For encryption, of another algorithm or curve, shared, private, too short, or broken."""
    assert public_key(jwk) is None


def test_a_set_is_read_without_what_is_not_usable() -> None:
    """One broken key does not hide the good ones."""
    keys = read_key_set(json.dumps({"keys": [{"kty": "oct"}, "x", None, RSA | {"kid": "good"}]}).encode())

    assert [key.key_id for key in keys] == ["good"]
