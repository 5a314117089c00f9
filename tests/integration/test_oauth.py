"""POST /oauth2/token as RFC 6749 has it, for programs that know nothing of the broker."""

import asyncio
import time
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
from authlib.integrations.requests_client import OAuth2Session

from broker.kube.token_requests import unverified_claims
from tests.support.broker import BrokerProcess, Registered, Reply, Tenant, basic
from tests.support.lab import Lab
from tests.support.processes import until

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Caller:
    """A client with two grants, one of them with audiences of its own."""

    def __init__(self, broker: BrokerProcess, tenant: Tenant, client: Registered) -> None:
        self.broker = broker
        self.tenant = tenant
        self.client = client

    async def ask(self, form: dict[str, str] | str, *, auth: tuple[str, str] | None = None) -> Reply:
        """Send a form, or a text as it is."""
        data = form if isinstance(form, str) else urlencode(form)
        return await self.broker.call("POST", "/oauth2/token", data=data.encode(), headers=FORM, auth=auth)

    async def grant(self, **form: str) -> Reply:
        """Ask for client credentials with the right secret."""
        return await self.ask({"grant_type": "client_credentials", **form}, auth=self.client.auth)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def caller(installed: Lab, broker: BrokerProcess) -> Caller:
    """Register the client, once."""
    tenant = await Tenant.create(installed.cluster, "oauth")
    await tenant.account("reader")
    grants: tuple[dict[str, Any], ...] = (
        {"name": "default", "serviceAccount": {"name": "reader"}},
        {"name": "away", "serviceAccount": {"name": "reader"}, "audiences": ["https://away.example/", "other"]},
    )
    client = await tenant.client("caller", *grants)
    await tenant.until_reason("caller", "Ready")
    return Caller(broker, tenant, client)


async def test_token_works_and_its_life_is_told_truly(caller: Caller, installed: Lab) -> None:
    """The API server takes it, expires_in is what is left of it, and no cache keeps the answer."""
    reply = await caller.grant(scope="default")
    token = reply.body["access_token"]
    pods = await installed.cluster.request("GET", "/api/v1/namespaces/oauth/pods", token=token)

    assert reply.status == 200
    assert set(reply.body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (reply.body["token_type"], reply.body["scope"]) == ("Bearer", "default")
    assert abs(unverified_claims(token)["exp"] - time.time() - reply.body["expires_in"]) < 3
    assert (reply.headers["Cache-Control"], reply.headers["Pragma"]) == ("no-store", "no-cache")
    assert pods[0] == 200


async def test_credentials_may_come_in_the_form(caller: Caller) -> None:
    """client_secret_post, for programs that cannot do Basic."""
    user, secret = caller.client.auth
    reply = await caller.ask(
        {"grant_type": "client_credentials", "scope": "default", "client_id": user, "client_secret": secret}
    )

    assert reply.status == 200


@pytest.mark.parametrize("name", ["audience", "resource"])
async def test_audience_is_what_was_asked_for(caller: Caller, name: str) -> None:
    """By either of its names; without one it is the grant's first."""
    reply = await caller.grant(scope="away", **{name: "other"})
    first = await caller.grant(scope="away")

    assert unverified_claims(reply.body["access_token"])["aud"] == ["other"]
    assert unverified_claims(first.body["access_token"])["aud"] == ["https://away.example/"]


@pytest.mark.parametrize(
    ("form", "status", "error", "code"),
    [
        ({}, 400, "invalid_request", "invalid_request"),
        ({"grant_type": ""}, 400, "invalid_request", "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", "grant_type_unsupported"),
        ({"grant_type": "client_credentials"}, 400, "invalid_scope", "grant_required"),
        ({"grant_type": "client_credentials", "scope": "nothing"}, 400, "invalid_scope", "grant_unknown"),
        ({"grant_type": "client_credentials", "scope": "default away"}, 400, "invalid_scope", "grant_unknown"),
        (
            {"grant_type": "client_credentials", "scope": "away", "audience": "x"},
            *(400, "invalid_target", "audience_not_allowed"),
        ),
        (
            {"grant_type": "client_credentials", "scope": "away", "audience": "other", "resource": "x"},
            *(400, "invalid_target", "audience_not_allowed"),
        ),
        ("grant_type=client_credentials&scope=default&scope=away", 400, "invalid_request", "invalid_request"),
        ("grant_type", 400, "invalid_request", "invalid_request"),
        ("grant_type=%ff", 400, "invalid_request", "invalid_request"),
        ("&".join(f"p{n}=1" for n in range(40)), 400, "invalid_request", "invalid_request"),
        ("x=" + "y" * 20_000, 413, "invalid_request", "body_too_large"),
    ],
)
async def test_refusal_is_an_oauth_error(
    caller: Caller, form: dict[str, str] | str, status: int, error: str, code: str
) -> None:
    """The RFC's word for programs, the broker's own beside it for people."""
    reply = await caller.ask(form, auth=caller.client.auth)

    assert (reply.status, reply.body["error"], reply.body["code"]) == (status, error, code)
    assert set(reply.body) == {"error", "error_description", "code", "request_id"}
    assert not set('"\\') & set(reply.body["error_description"])
    assert reply.headers["Cache-Control"] == "no-store"


async def test_strangers_get_the_same_answer_here_too(caller: Caller) -> None:
    """Whoever is not the client learns nothing about it, whichever way the credentials came."""
    user, secret = caller.client.auth
    wrong = secret[:-6] + "AAAAAA"
    form = {"grant_type": "client_credentials", "scope": "default"}
    replies = [
        await caller.ask(form),
        await caller.ask(form, auth=(user, wrong)),
        await caller.ask(form, auth=("oauth/nobody", secret)),
        await caller.ask(form | {"client_id": user, "client_secret": wrong}),
        await caller.ask(form | {"client_id": "oauth/nobody", "client_secret": secret}),
        await caller.ask(form | {"client_id": user}),
    ]
    bodies = {tuple(sorted((k, v) for k, v in reply.body.items() if k != "request_id")) for reply in replies}

    assert {reply.status for reply in replies} == {401}
    assert len(bodies) == 1
    assert replies[0].body["error"] == "invalid_client"
    assert all(reply.headers["WWW-Authenticate"].startswith("Basic ") for reply in replies)


async def test_credentials_count_once(caller: Caller) -> None:
    """Two sets of them, or two names, are a request that nobody understands (RFC 6749, 2.3)."""
    user, secret = caller.client.auth
    form = {"grant_type": "client_credentials", "scope": "default", "client_id": user}
    twice = await caller.ask(form | {"client_secret": secret}, auth=caller.client.auth)
    same = await caller.ask(form, auth=caller.client.auth)
    other = await caller.ask(form | {"client_id": "oauth/other"}, auth=caller.client.auth)

    assert (twice.status, twice.body["error"]) == (400, "invalid_request")
    assert same.status == 200
    assert (other.status, other.body["error"]) == (400, "invalid_request")


async def test_other_content_and_methods_are_refused(caller: Caller) -> None:
    """JSON belongs to /v1/tokens, and parameters never into a URL."""
    as_json = await caller.broker.call("POST", "/oauth2/token", {"grant_type": "x"}, auth=caller.client.auth)
    read = await caller.broker.call("GET", "/oauth2/token?grant_type=client_credentials", auth=caller.client.auth)

    assert (as_json.status, as_json.body["code"]) == (400, "unsupported_media_type")
    assert (read.status, read.body["code"], read.headers["Allow"]) == (405, "method_not_allowed", "POST")


async def test_suspended_client_is_unauthorized(caller: Caller) -> None:
    """What the owner stopped, stops here too."""

    async def served() -> bool:
        return (await caller.grant(scope="default")).status == 200

    async def stopped() -> bool:
        return not await served()

    await caller.tenant.patch("caller", {"suspend": True})
    try:
        await until(stopped, what="the suspension is in force")
        reply = await caller.grant(scope="default")
    finally:
        await caller.tenant.patch("caller", {"suspend": None})
        await until(served, what="the client is served again")

    assert (reply.status, reply.body["error"], reply.body["code"]) == (400, "unauthorized_client", "client_suspended")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_library_of_another_project_gets_a_token(caller: Caller, installed: Lab, method: str) -> None:
    """Authlib, configured with nothing but the id, the secret and the address."""
    user, secret = caller.client.auth

    def fetch() -> dict[str, Any]:
        with OAuth2Session(user, secret, scope="default", token_endpoint_auth_method=method) as session:
            token: dict[str, Any] = session.fetch_token(f"{caller.broker.url}/oauth2/token")
            return token

    token = await asyncio.to_thread(fetch)
    status, _ = await installed.cluster.request(
        "GET", "/api/v1/namespaces/oauth/pods", token=str(token["access_token"])
    )

    assert status == 200
    assert token["expires_at"] > time.time() + 60


async def test_two_authorization_headers_are_refused(caller: Caller) -> None:
    """Two proxies must not disagree about who is asking."""
    credentials = (basic(*caller.client.auth), basic("oauth/nobody", "x"))
    headers = [*(("Authorization", one) for one in credentials), *FORM.items()]
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{caller.broker.url}/oauth2/token", data="grant_type=client_credentials&scope=default", headers=headers
        ) as answer,
    ):
        assert answer.status == 401
