"""Tokens over HTTP, from a real broker under its own account, for a real API server."""

import base64
import json
from typing import Any

import pytest

from broker.http.problems import CHALLENGES
from broker.identity import secret
from tests.support.broker import BrokerProcess, Tenant
from tests.support.lab import Lab


def claims_of(token: str) -> dict[str, Any]:
    """Return a token's claims."""
    payload = token.split(".")[1]
    document: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return document


async def test_a_token_works_for_what_its_account_may_and_nothing_else(
    broker: BrokerProcess, tenant: Tenant, lab: Lab
) -> None:
    """The token lists pods as the view role says, and is refused Secrets by the API server."""
    client = await tenant.ready_client("reader")

    reply = await broker.call("POST", "/v1/tokens", {"ttl": "15m"}, auth=client.auth)

    assert reply.status == 200
    token = reply.body["token"]
    base = f"/api/v1/namespaces/{tenant.namespace}"
    assert (await lab.cluster.request("GET", f"{base}/pods", token=token))[0] == 200
    assert (await lab.cluster.request("GET", f"{base}/secrets", token=token))[0] == 403


async def test_the_answer_tells_all_that_a_client_needs(broker: BrokerProcess, tenant: Tenant, lab: Lab) -> None:
    """Token, times, subject, audience, endpoint and CA come in one answer that no cache keeps."""
    client = await tenant.ready_client("reader")

    reply = await broker.call("POST", "/v1/tokens", {"ttl": "20m"}, auth=client.auth)

    claims = claims_of(reply.body["token"])
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.body["ttl"] == {"requestedSeconds": 1200, "grantedSeconds": 1200, "reason": None}
    assert claims["exp"] - claims["iat"] == 1200
    assert claims["aud"] == [reply.body["audience"]]
    assert claims["sub"] == reply.body["subject"] == f"system:serviceaccount:{tenant.namespace}:reader"
    assert reply.body["id"] == claims["jti"]
    assert reply.body["cluster"]["server"] == lab.cluster.server
    assert reply.body["cluster"]["ca"] == lab.cluster.ca_file.read_text()


async def test_deleting_the_anchor_ends_its_tokens(broker: BrokerProcess, tenant: Tenant, lab: Lab) -> None:
    """A token is bound to the grant's anchor: a new one, on another anchor, is issued afterwards."""
    client = await tenant.ready_client("reader")
    token = (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).body["token"]
    anchor = claims_of(token)["kubernetes.io"]["secret"]

    path = f"/api/v1/namespaces/{tenant.namespace}/secrets/{anchor['name']}"
    status, stored = await lab.cluster.request("GET", path)
    await lab.cluster.request("DELETE", path)
    first = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

    assert (status, stored["type"]) == (200, "tokenbroker.dev/anchor")
    assert "data" not in stored
    assert (first.status, first.body["code"]) == (503, "anchor_missing")
    assert first.headers["Retry-After"] == "2"
    await tenant.until_reason("reader", "Ready")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"ttl": "2h"}, 422, "ttl_out_of_range"),
        ({"ttl": "9m59s"}, 422, "ttl_out_of_range"),
        ({"ttl": "soon"}, 422, "ttl_out_of_range"),
        ({"audience": "vault"}, 403, "audience_not_allowed"),
        ({"grant": "other"}, 403, "grant_unknown"),
        ({"grants": "default"}, 400, "invalid_request"),
        ({"ttl": 900}, 400, "invalid_request"),
        ({"client": "some/body"}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
async def test_what_a_grant_does_not_allow_is_refused(
    broker: BrokerProcess, shared_client: tuple[str, str], body: Any, status: int, code: str
) -> None:
    """Each refusal is a problem document with its own code; nothing is changed silently."""
    reply = await broker.call("POST", "/v1/tokens", body, auth=shared_client)

    assert (reply.status, reply.body["code"]) == (status, code)
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    if code == "ttl_out_of_range":
        assert reply.body["limits"]["max_ttl_seconds"] == 3600


async def test_strangers_all_get_the_same_answer(broker: BrokerProcess, shared_client: tuple[str, str]) -> None:
    """No credentials, a malformed or wrong secret and an unknown client cannot be told apart."""
    wrong = secret.generate().reveal()
    attempts = [None, ("no/body", wrong), (shared_client[0], wrong), (shared_client[0], "x"), ("..", wrong)]

    replies = [await broker.call("POST", "/v1/tokens", {}, auth=auth) for auth in attempts]

    assert {reply.status for reply in replies} == {401}
    assert {reply.headers["WWW-Authenticate"] for reply in replies} == {CHALLENGES}
    for reply in replies:
        del reply.body["request_id"]
    assert all(reply.body == replies[0].body for reply in replies)
    metrics = await broker.metrics()
    for reason in ("missing", "malformed", "unknown_client", "wrong_secret"):
        assert f'tokenbroker_authentication_failures_total{{reason="{reason}"}} 0.0' not in metrics


async def test_a_suspended_client_gets_nothing_until_it_is_resumed(broker: BrokerProcess, tenant: Tenant) -> None:
    """Suspending takes effect through the watch and shows in the condition."""
    client = await tenant.ready_client("reader")

    await tenant.patch("reader", {"suspend": True})
    await tenant.until_reason("reader", "Suspended")
    refused = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    await tenant.patch("reader", {"suspend": None})
    await tenant.until_reason("reader", "Ready")
    resumed = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

    assert (refused.status, refused.body["code"]) == (403, "client_suspended")
    assert resumed.status == 200


async def test_a_registration_ends_when_it_says(broker: BrokerProcess, tenant: Tenant) -> None:
    """Past notAfter the client is refused and says so."""
    await tenant.account("reader")
    client = await tenant.client("reader", {"serviceAccount": {"name": "reader"}}, notAfter="2020-01-01T00:00:00Z")
    await tenant.until_reason("reader", "Expired")

    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

    assert (reply.status, reply.body["code"]) == (403, "client_expired")


async def test_a_missing_account_is_told_to_the_operator(broker: BrokerProcess, tenant: Tenant) -> None:
    """The condition has the line to type; the caller learns only that it is missing."""
    await tenant.allow_minting("ghost")
    client = await tenant.client("reader", {"serviceAccount": {"name": "ghost"}})

    condition = await tenant.until_reason("reader", "ServiceAccountMissing")
    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

    assert f"kubectl create serviceaccount ghost -n {tenant.namespace}" in condition["message"]
    assert (reply.status, reply.body["code"]) == (409, "service_account_missing")
    assert "kubectl" not in reply.body["detail"]


async def test_a_namespace_that_did_not_let_the_broker_in_is_told_how(broker: BrokerProcess, tenant: Tenant) -> None:
    """Without the owner's Role nothing is minted, and the condition names the Role that is missing."""
    client = await tenant.client("reader", {"serviceAccount": {"name": "reader"}})

    condition = await tenant.until_reason("reader", "BrokerNotAuthorized")
    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

    assert "deploy/client-namespace" in condition["message"]
    assert reply.status == 503
    assert "Retry-After" in reply.headers


async def test_every_token_is_in_the_audit_log_and_never_itself(broker: BrokerProcess, tenant: Tenant) -> None:
    """The record has the token's digest and jti; neither it nor the secret is in the log or the record."""
    client = await tenant.ready_client("reader")

    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)

    text = broker.audit_file.read_text()
    record = next(json.loads(line) for line in text.splitlines() if reply.body["id"] in line)
    assert record["event"] == "token.issued"
    assert record["client"] == client.id
    assert record["request_id"] == reply.body["request_id"]
    token = reply.body["token"]
    everything = text + broker.program.log.read_text() + await broker.metrics()
    for hidden in (token, token.split(".")[2], client.secret):
        assert hidden not in everything


async def test_a_client_sees_its_own_grants(broker: BrokerProcess, tenant: Tenant) -> None:
    """GET /v1/grants tells bounds and subject."""
    client = await tenant.ready_client("reader", audiences=["https://one", "https://two"])

    reply = await broker.call("GET", "/v1/grants", auth=client.auth)
    token = (await broker.call("POST", "/v1/tokens", {"audience": "https://two"}, auth=client.auth)).body["token"]
    named = [await broker.call("GET", f"/v1/grants?client={name}", auth=client.auth) for name in (client.id, "a/b")]

    assert [(one.status, one.body.get("code")) for one in named] == [(200, None), (400, "invalid_request")]
    [grant] = reply.body["grants"]
    assert grant["audiences"] == ["https://one", "https://two"]
    assert grant["ttl"] == {"min": "10m", "default": "15m", "max": "1h"}
    assert claims_of(token)["aud"] == ["https://two"]


@pytest.fixture
async def shared_client(broker: BrokerProcess, installed: Lab) -> tuple[str, str]:
    """Return a client that tests may call but not change."""
    known = getattr(broker, "_shared_client", None)
    if known is None:
        tenant = await Tenant.create(installed.cluster, "shared")
        known = (await tenant.ready_client("shared")).auth
        broker._shared_client = known  # type: ignore[attr-defined]
    return known
