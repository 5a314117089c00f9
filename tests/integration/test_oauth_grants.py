"""All grant types of POST /oauth2/token, introspection and metadata: by hand, and with Authlib."""

import asyncio
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.kube.token_requests import unverified_claims
from tests.support.broker import BrokerProcess, Tenant
from tests.support.federated import FORM, Federated
from tests.support.lab import Lab
from tests.support.processes import until

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


async def works(federated: Federated, token: str) -> bool:
    """Tell whether the API server takes a token."""
    status, _ = await federated.lab.cluster.request("GET", "/api/v1/namespaces/federated/pods", token=token)
    return status == 200


async def test_jwt_bearer(federated: Federated) -> None:
    """The JWT is the grant (RFC 7523, 2.1)."""
    form = {"grant_type": JWT_BEARER, "assertion": federated.jwt(), "client_id": "federated/ci", "scope": "default"}
    reply = await federated.form(form)

    assert reply.status == 200, reply.body
    assert set(reply.body) == {"access_token", "token_type", "expires_in", "scope"}
    assert await works(federated, reply.body["access_token"])


async def test_token_exchange(federated: Federated) -> None:
    """The JWT is exchanged (RFC 8693), and the answer says into what."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": federated.jwt(),
        "subject_token_type": JWT_TYPE,
        "requested_token_type": JWT_TYPE,
        "client_id": "federated/ci",
    }
    reply = await federated.form(form)
    del form["requested_token_type"]
    other = await federated.form(
        form | {"subject_token": await federated.account_token(), "client_id": "federated/pod"}
    )

    assert reply.status == 200, reply.body
    assert reply.body["issued_token_type"] == JWT_TYPE
    assert other.body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert await works(federated, reply.body["access_token"])
    assert await works(federated, other.body["access_token"])


@pytest.mark.parametrize(
    ("form", "error", "code"),
    [
        ({"grant_type": JWT_BEARER}, "invalid_request", "invalid_request"),
        ({"grant_type": JWT_BEARER, "assertion": "x.y.z"}, "invalid_request", "invalid_request"),
        (
            {"grant_type": JWT_BEARER, "assertion": "x.y.z", "client_id": "federated/ci"},
            *("invalid_grant", "invalid_client"),
        ),
        (
            {"grant_type": JWT_BEARER, "assertion": "x.y.z", "client_id": "federated/ci", "client_secret": "x"},
            *("invalid_request", "invalid_request"),
        ),
        ({"grant_type": EXCHANGE, "subject_token": "x.y.z"}, "invalid_request", "invalid_request"),
        (
            {"grant_type": EXCHANGE, "subject_token": "x.y.z", "subject_token_type": JWT_TYPE, "client_id": "a/b"},
            *("invalid_request", "invalid_client"),
        ),
        (
            {"grant_type": EXCHANGE, "subject_token_type": "urn:ietf:params:oauth:token-type:saml2"},
            *("invalid_request", "invalid_request"),
        ),
        (
            {
                "grant_type": EXCHANGE,
                "subject_token": "x",
                "subject_token_type": JWT_TYPE,
                "client_id": "federated/ci",
                "actor_token": "y",
            },
            *("invalid_request", "invalid_request"),
        ),
        (
            {
                "grant_type": EXCHANGE,
                "subject_token": "x",
                "subject_token_type": JWT_TYPE,
                "client_id": "federated/ci",
                "requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
            },
            *("invalid_request", "invalid_request"),
        ),
    ],
    ids=str,
)
async def test_refusal_of_a_grant(federated: Federated, form: dict[str, str], error: str, code: str) -> None:
    """A wrong proof that is the grant itself is 400 in the grant's own word, without a challenge."""
    reply = await federated.form(form)

    assert (reply.status, reply.body["error"], reply.body["code"]) == (400, error, code)
    assert "WWW-Authenticate" not in reply.headers


async def test_mismatching_claims_are_named_here_too(federated: Federated) -> None:
    """In OAuth's words."""
    form = {"grant_type": JWT_BEARER, "assertion": federated.jwt(environment="test"), "client_id": "federated/ci"}
    reply = await federated.form(form)

    assert (reply.status, reply.body["error"], reply.body["code"]) == (400, "invalid_grant", "proof_claims_mismatch")
    assert reply.body["error_description"].endswith(": environment.")


async def test_bearer_header_is_no_client_authentication(federated: Federated) -> None:
    """OAuth has grants for it; the answer says which."""
    headers = {"Authorization": f"Bearer {federated.jwt()}"}
    reply = await federated.form({"grant_type": "client_credentials", "client_id": "federated/ci"}, headers=headers)

    assert (reply.status, reply.body["error"]) == (400, "invalid_request")
    assert JWT_BEARER in reply.body["error_description"]


async def test_authlib_with_private_key_jwt(federated: Federated) -> None:
    """A library of another project signs its own assertions, and a second one right after the first."""
    url = f"{federated.audience}/oauth2/token"
    pem = federated.key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def fetch() -> list[Any]:
        method = PrivateKeyJWT(url, headers={"kid": federated.key.key_id})
        with OAuth2Session("federated/signer", pem, token_endpoint_auth_method=method) as session:
            return [session.fetch_token(url, grant_type="client_credentials") for _ in range(2)]

    tokens = await asyncio.to_thread(fetch)

    assert all([await works(federated, token["access_token"]) for token in tokens])
    assert tokens[0]["access_token"] != tokens[1]["access_token"]


async def test_authlib_with_jwt_bearer_and_exchange(federated: Federated) -> None:
    """The other grant types by the same library's generic way."""
    url = f"{federated.audience}/oauth2/token"
    subject = await federated.account_token()

    def fetch() -> list[Any]:
        with OAuth2Session("federated/ci", token_endpoint_auth_method="none") as session:
            bearer = session.fetch_token(url, grant_type=JWT_BEARER, assertion=federated.jwt())
        with OAuth2Session("federated/pod", token_endpoint_auth_method="none") as session:
            more = {"subject_token": subject, "subject_token_type": JWT_TYPE}
            return [bearer, session.fetch_token(url, grant_type=EXCHANGE, **more)]

    tokens = await asyncio.to_thread(fetch)

    assert all([await works(federated, token["access_token"]) for token in tokens])


async def test_metadata_describes_what_there_is(federated: Federated) -> None:
    """RFC 8414: each endpoint is under the public URL and answers, and each grant type is known."""
    reply = await federated.broker.call("GET", "/.well-known/oauth-authorization-server")
    said = reply.body
    statuses = [
        (await federated.form({}, path=said[name].removeprefix(said["issuer"]))).status
        for name in ("token_endpoint", "introspection_endpoint")
    ]
    unknown = [
        (await federated.form({"grant_type": kind})).body["code"] == "grant_type_unsupported"
        for kind in (*said["grant_types_supported"], "password")
    ]

    assert (reply.status, said["issuer"]) == (200, federated.audience)
    assert statuses == [400, 401]
    assert unknown == [False, False, False, True]
    assert said["response_types_supported"] == []


async def introspect(federated: Federated, token: str, client: str = "ci", **form: str) -> Any:
    """Ask about a token as a client that is proved by the issuer."""
    headers = {"Authorization": f"Bearer {federated.jwt()}"}
    sent = {"token": token, "client_id": f"federated/{client}", **form}
    return (await federated.form(sent, path="/oauth2/introspect", headers=headers)).body


async def test_introspection_of_an_own_token(federated: Federated) -> None:
    """Everything that RFC 7662 has a name for, as the token itself says it."""
    token = (await federated.ask(federated.jwt())).body["token"]
    claims = unverified_claims(token)
    said = await introspect(federated, token, token_type_hint="access_token")

    assert said == {
        "active": True,
        "scope": "default",
        "client_id": "federated/ci",
        "token_type": "Bearer",
        "sub": "system:serviceaccount:federated:reader",
        "aud": claims["aud"][0],
        **{name: claims[name] for name in ("exp", "iat", "iss", "jti")},
    }


async def test_foreign_tokens_are_not_active(federated: Federated) -> None:
    """Another client's of the same account, an unbound one of it, a forged one and what is none."""
    now = int(time.time())
    said = {
        "iss": "federated/signer",
        "sub": "federated/signer",
        "aud": federated.audience,
        "iat": now,
        "exp": now + 60,
    }
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": federated.key.sign(said | {"jti": "introspection"}),
    }
    foreign = (await federated.form(form)).body["access_token"]
    unbound = await federated.lab.cluster.token_for("federated", "reader")
    own = (await federated.ask(federated.jwt())).body["token"]
    forged = f"{own[:-8]}{'A' * 8}"

    for token in (foreign, unbound, forged, "x", federated.jwt(), await federated.account_token()):
        assert await introspect(federated, token) == {"active": False}


async def test_introspection_of_a_token_that_was_ended(federated: Federated) -> None:
    """Its anchor is deleted: it is active no more, within what the API server takes to notice."""
    tenant = federated.tenant
    await federated.register(
        "ended", {"oidc": {"issuer": federated.issuer.url, "claims": {"environment": ["production"]}}}
    )
    token = (await federated.ask(federated.jwt(), "ended")).body["token"]
    assert (await introspect(federated, token, "ended"))["active"]
    secret = unverified_claims(token)["kubernetes.io"]["secret"]["name"]
    await tenant.cluster.request("DELETE", f"/api/v1/namespaces/federated/secrets/{secret}")

    async def ended() -> bool:
        return bool(await introspect(federated, token, "ended") == {"active": False})

    await until(ended, what="the token is not active any more", seconds=20)


async def test_introspection_of_a_token_in_vault(broker: BrokerProcess, tenant: Tenant, installed: Lab) -> None:
    """Readers of Vault can ask about theirs, also about the version before; others learn nothing."""
    client = await tenant.ready_client("kept", vault={"ttl": "1h"})
    other = await tenant.client("other", {"serviceAccount": {"name": "reader"}})
    await tenant.until_reason("other", "Ready")
    path = f"secret/data/tokenbroker/lab/{tenant.namespace}/kept/default"

    async def delivered() -> bool:
        return (await broker.call("POST", "/v1/tokens", {"deliver": "vault"}, auth=client.auth)).status == 200

    async def active(token: str, auth: tuple[str, str]) -> Any:
        data = urlencode({"token": token}).encode()
        headers = {"Content-Type": FORM}
        return (await broker.call("POST", "/oauth2/introspect", data=data, headers=headers, auth=auth)).body["active"]

    await until(delivered, what="a token is in Vault")
    first = (await installed.vault.api("GET", path))[1]["data"]["data"]["token"]
    assert await delivered()
    second = (await installed.vault.api("GET", path))[1]["data"]["data"]["token"]

    assert first != second
    for token in (first, second):
        assert await active(token, client.auth)
        assert not await active(token, other.auth)


async def test_introspection_wants_to_know_who_asks(federated: Federated) -> None:
    """Strangers learn nothing, and a request without a token is none."""
    reply = await federated.form({"token": "x"}, path="/oauth2/introspect")
    headers = {"Authorization": f"Bearer {federated.jwt()}"}
    empty = await federated.form({"client_id": "federated/ci"}, path="/oauth2/introspect", headers=headers)

    assert (reply.status, reply.body["error"]) == (401, "invalid_client")
    assert (empty.status, empty.body["error"]) == (400, "invalid_request")
