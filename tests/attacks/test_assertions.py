"""Assertions that a client signs itself (private_key_jwt): forged, stale, misdirected and used again."""

import time
from typing import Any

import pytest

from tests.support.federated import Federated
from tests.support.issuer import SigningKey

NAME = "federated/signer"
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def claims(federated: Federated, **changes: Any) -> dict[str, Any]:
    """Return what a right assertion says, but for what is changed; None leaves out."""
    now = int(time.time())
    right = {
        "iss": NAME,
        "sub": NAME,
        "aud": f"{federated.audience}/oauth2/token",
        "iat": now,
        "exp": now + 60,
        "jti": f"jti-{time.monotonic_ns()}",
    }
    return {name: value for name, value in (right | changes).items() if value is not None}


async def outcome(federated: Federated, assertion: str, **form: str) -> tuple[int, str]:
    """Return status and error of what an assertion gets."""
    sent = {"grant_type": "client_credentials", "client_assertion_type": TYPE, "client_assertion": assertion, **form}
    reply = await federated.form(sent)
    return reply.status, reply.body.get("error", "issued")


async def test_an_assertion_gets_a_token(federated: Federated) -> None:
    """With the client's name beside it or without, for the token endpoint's URL or the broker's."""
    sign = federated.key.sign

    assert await outcome(federated, sign(claims(federated))) == (200, "issued")
    assert await outcome(federated, sign(claims(federated)), client_id=NAME) == (200, "issued")
    assert await outcome(federated, sign(claims(federated, aud=federated.audience))) == (200, "issued")
    assert await outcome(federated, sign(claims(federated, aud=[federated.audience]))) == (200, "issued")


async def test_replayed_jti(federated: Federated) -> None:
    """Each assertion counts once, also when it is signed anew under the same id."""
    said = claims(federated)
    assertion = federated.key.sign(said)

    assert await outcome(federated, assertion) == (200, "issued")
    assert await outcome(federated, assertion) == (401, "invalid_client")
    assert await outcome(federated, federated.key.sign(said | {"exp": said["exp"] + 1})) == (401, "invalid_client")


async def test_a_failed_assertion_does_not_use_its_jti_up(federated: Federated) -> None:
    """Else whoever guesses an id could end the right one."""
    said = claims(federated)
    forged = SigningKey.create(federated.key.key_id).sign(said)

    assert await outcome(federated, forged) == (401, "invalid_client")
    assert await outcome(federated, federated.key.sign(said)) == (200, "issued")


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "federated/ci"},
        {"sub": "federated/ci"},
        {"iss": None},
        {"aud": "https://other.example"},
        {"aud": None},
        {"jti": None},
        {"jti": ""},
        {"jti": 1},
        {"jti": "x" * 257},
        {"exp": None},
        {"iat": None},
        {"exp": 1},
    ],
    ids=str,
)
async def test_wrong_claims(federated: Federated, wrong: dict[str, Any]) -> None:
    """Each by itself is enough."""
    said = claims(federated, **wrong)

    assert await outcome(federated, federated.key.sign(said), client_id=NAME) == (401, "invalid_client")


async def test_audience_list_with_ours_among_others(federated: Federated) -> None:
    """Another token endpoint could use it here."""
    both = [f"{federated.audience}/oauth2/token", "https://other.example/token"]

    assert await outcome(federated, federated.key.sign(claims(federated, aud=both))) == (401, "invalid_client")


async def test_an_assertion_for_a_year(federated: Federated) -> None:
    """It is made for one request; a key that leaks once must not have signed for years."""
    said = claims(federated, exp=int(time.time()) + 366 * 86400)
    old = claims(federated, iat=int(time.time()) - 7200)

    assert await outcome(federated, federated.key.sign(said)) == (401, "invalid_client")
    assert await outcome(federated, federated.key.sign(old)) == (401, "invalid_client")


async def test_another_clients_name(federated: Federated) -> None:
    """A right assertion of one client is none of another, nor of one that has no keys or is not there."""
    for name in ("federated/ci", "federated/nobody", "x"):
        said = claims(federated, iss=name, sub=name)
        assert await outcome(federated, federated.key.sign(said), client_id=name) == (401, "invalid_client")
        assert await outcome(federated, federated.key.sign(claims(federated)), client_id=name) == (
            401,
            "invalid_client",
        )


async def test_another_key(federated: Federated) -> None:
    """By another key of the same name, of another name, or another algorithm than is registered."""
    said = claims(federated)
    for key_id in (federated.key.key_id, "other"):
        assert await outcome(federated, SigningKey.create(key_id).sign(said)) == (401, "invalid_client")
    assert await outcome(federated, federated.key.sign(said, kid="other")) == (401, "invalid_client")
    assert await outcome(federated, federated.key.sign(said, alg="RS512")) == (401, "invalid_client")


@pytest.mark.parametrize(
    "form",
    [
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_assertion_type": ""},
        {"client_assertion": ""},
        {"client_secret": "tbs_x"},
    ],
    ids=str,
)
async def test_requests_that_contradict_themselves(federated: Federated, form: dict[str, str]) -> None:
    """Another kind of assertion, none, or two ways at once (RFC 7521, 4.2)."""
    assert await outcome(federated, federated.key.sign(claims(federated)), **form) == (400, "invalid_request")
