"""Forged, stale and misdirected JWTs at a running broker: none of them gets a token."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.federated import Federated
from tests.support.issuer import SigningKey

REFUSED = (401, "invalid_client")
MISMATCH = (403, "proof_claims_mismatch")


def encoded(document: Any) -> str:
    """Return a part of a JWT."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def with_header(jwt: str, **changes: Any) -> str:
    """Return a JWT with another header, and the old signature."""
    header, claims, signature = jwt.split(".")
    said = json.loads(base64.urlsafe_b64decode(header + "=="))
    return ".".join((encoded(said | changes), claims, signature))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
async def test_alg_none(federated: Federated, alg: str) -> None:
    """A JWT without a signature, in every spelling, with the old signature or none."""
    header, claims, signature = with_header(federated.jwt(), alg=alg).split(".")

    for forged in (f"{header}.{claims}.", f"{header}.{claims}.{signature}", f"{header}.{claims}"):
        assert await federated.outcome(forged) == REFUSED


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
async def test_hs256_with_the_public_key(federated: Federated, encoding: serialization.Encoding) -> None:
    """The issuer's public key is no secret to sign with, though everybody knows it."""
    public = federated.issuer.key.private.public_key()
    known = public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    header, claims, _ = with_header(federated.jwt(), alg="HS256").split(".")
    mac = hmac.new(known, f"{header}.{claims}".encode(), hashlib.sha256).digest()

    assert await federated.outcome(f"{header}.{claims}.{encoded(mac)}") == REFUSED


async def test_another_key_under_the_right_name(federated: Federated) -> None:
    """A signature by a key that is not the issuer's."""
    forged = SigningKey.create(federated.issuer.key.key_id)
    claims = json.loads(base64.urlsafe_b64decode(federated.jwt().split(".")[1] + "=="))

    assert await federated.outcome(forged.sign(claims)) == REFUSED


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
async def test_a_key_that_the_token_brings_itself(federated: Federated, name: str) -> None:
    """Keys, and where they are, are the issuer's to say."""
    own = SigningKey.create("own")
    claims = json.loads(base64.urlsafe_b64decode(federated.jwt().split(".")[1] + "=="))
    value = {"jwk": own.jwk, "x5c": ["MIIB"]}.get(name, f"{federated.issuer.url}/own")
    forged = own.sign(claims, **{name: value})

    assert await federated.outcome(forged) == REFUSED
    assert "/own" not in federated.issuer.asked


async def test_claims_changed_after_signing(federated: Federated) -> None:
    """Another environment under the old signature."""
    header, claims, signature = federated.jwt(environment="test").split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"environment": "production"}

    assert await federated.outcome(f"{header}.{encoded(said)}.{signature}") == REFUSED


async def test_crit_and_typ(federated: Federated) -> None:
    """What has to be understood and is not, and tokens of other kinds, are refused even when signed."""
    claims = json.loads(base64.urlsafe_b64decode(federated.jwt().split(".")[1] + "=="))
    headers: list[dict[str, Any]] = [{"crit": ["exp"]}, {"crit": ["b64"], "b64": True}, {"typ": "at+jwt"}, {"typ": 1}]

    for header in headers:
        assert await federated.outcome(federated.issuer.key.sign(claims, **header)) == REFUSED, header
    assert await federated.outcome(federated.issuer.key.sign(claims, typ=None)) == (200, "issued")


@pytest.mark.parametrize("issuer", ["https://evil.example", "", None, 1, ["https://127.0.0.1"], "{url}/", "{url}#"])
async def test_wrong_issuer(federated: Federated, issuer: Any) -> None:
    """Letter by letter: no slash more, no list, nobody else."""
    named = issuer.format(url=federated.issuer.url) if isinstance(issuer, str) else issuer

    assert await federated.outcome(federated.jwt(iss=named)) == REFUSED


async def test_audience_as_a_substring(federated: Federated) -> None:
    """Neither a part of our name nor one that contains it."""
    ours = federated.audience

    for audience in (ours[:-1], ours + "/", ours + ".evil.example", f"x {ours}", ours.upper(), "", None, 1, {ours: 1}):
        assert await federated.outcome(federated.jwt(aud=audience)) == MISMATCH, audience


async def test_audience_list_with_ours_among_others(federated: Federated) -> None:
    """A JWT that somebody else may use too proves nothing; one in a list of one does."""
    ours = federated.audience

    for audience in ([ours, "https://other.example"], [[ours]], [], [ours, ours]):
        assert await federated.outcome(federated.jwt(aud=audience)) == MISMATCH, audience
    assert await federated.outcome(federated.jwt(aud=[ours])) == (200, "issued")


@pytest.mark.parametrize(
    "times",
    [
        {"exp": -60},
        {"exp": None},
        {"iat": 3600},
        {"nbf": 3600},
        {"iat": None},
        {"iat": -2 * 86400},
    ],
    ids=str,
)
async def test_expired_from_the_future_no_exp(federated: Federated, times: dict[str, int | None]) -> None:
    """Each by itself is enough to be refused, in seconds from now."""
    claims = {name: None if offset is None else int(time.time()) + offset for name, offset in times.items()}

    assert await federated.outcome(federated.jwt(**claims)) == REFUSED


@pytest.mark.parametrize("value", ["9999999999", True, [9999999999], 1e300, -1, 0], ids=repr)
async def test_exp_that_is_no_time(federated: Federated, value: Any) -> None:
    """A text, a boolean, a list and numbers beyond all calendars are no times."""
    assert await federated.outcome(federated.jwt(exp=value)) == REFUSED


@pytest.mark.parametrize(
    "value",
    [
        123456,
        123456.0,
        True,
        None,
        {"": "123456"},
        [["123456"]],
        ["123456", 1],
        "123456 ",
        "\uff11\uff12\uff13\uff14\uff15\uff16",
        "*",
        "",
    ],
    ids=repr,
)
async def test_claims_as_numbers_or_nested(federated: Federated, value: Any) -> None:
    """Only the very text counts, or a list of texts that has it."""
    assert await federated.outcome(federated.jwt(repository_id=value)) == MISMATCH


async def test_a_claim_that_is_there_twice(federated: Federated) -> None:
    """Programs disagree about which one counts, so neither does."""
    claims = json.loads(base64.urlsafe_b64decode(federated.jwt().split(".")[1] + "=="))
    twice = json.dumps(claims)[:-1] + ', "environment": "production"}'
    key = federated.issuer.key
    header = {"alg": "RS256", "typ": "JWT", "kid": key.key_id}

    assert await federated.outcome(key.sign_text(header, twice)) == REFUSED
    assert await federated.outcome(key.sign_text(header, json.dumps(claims))) == (200, "issued")


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "a" * 7000, "e30.e30.e30", "e30=.e30=.e30=", "\\u0000.a.b", "eyJ" + "[" * 4000 + ".a.b"],
    ids=lambda text: text[:12],
)
async def test_what_is_no_jwt(federated: Federated, text: str) -> None:
    """Anything may stand after Bearer."""
    assert await federated.outcome(text) == REFUSED


async def test_unknown_kid_floods(federated: Federated) -> None:
    """However many keys are made up, the issuer is asked once a minute, and right JWTs go on."""
    await federated.ask(federated.jwt())
    before = federated.issuer.asked.count("/keys")
    claims = json.loads(base64.urlsafe_b64decode(federated.jwt().split(".")[1] + "=="))

    for number in range(50):
        assert await federated.outcome(federated.issuer.key.sign(claims, kid=f"made-up-{number}")) == REFUSED
    assert await federated.outcome(federated.jwt()) == (200, "issued")

    assert federated.issuer.asked.count("/keys") - before <= 1


async def test_a_minted_token_proves_nothing(federated: Federated) -> None:
    """What the broker hands out cannot be brought back as a proof, whichever client it is for."""
    minted = (await federated.ask(federated.jwt())).body["token"]

    for client in ("ci", "pod", "signer"):
        assert await federated.outcome(minted, client) == REFUSED


async def test_service_account_token_with_the_api_servers_audience(federated: Federated) -> None:
    """Else any pod's token would do: those for the API server, for others, and for us among others."""
    cluster = federated.lab.cluster
    default = await cluster.token_for("federated", "runner")
    others = await federated.account_token(audiences=["https://other.example"])
    both = await federated.account_token(audiences=[federated.audience, "https://other.example"])

    for token in (default, others, both):
        assert await federated.outcome(token, "pod") == REFUSED
    assert await federated.outcome(await federated.account_token(), "pod") == (200, "issued")


async def test_a_secret_in_the_place_of_a_jwt(federated: Federated) -> None:
    """A JWT that a client signed itself is no Bearer token: it goes to /oauth2/token."""
    now = int(time.time())
    name = "federated/signer"
    claims = {"iss": name, "sub": name, "aud": federated.audience, "iat": now, "exp": now + 60, "jti": "bearer-1"}

    assert await federated.outcome(federated.key.sign(claims), "signer") == REFUSED
