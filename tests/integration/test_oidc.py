"""Clients that are proved by JWTs of an issuer (OpenID Connect), against a real cluster."""

import asyncio
import json
import time

from tests.support.federated import AWAY, Federated
from tests.support.processes import until


async def test_a_jwt_gets_a_token_that_works(federated: Federated) -> None:
    """No secret anywhere, and the audit record says who it was."""
    reply = await federated.ask(federated.jwt())
    path = "/api/v1/namespaces/federated/pods"
    pods = await federated.lab.cluster.request("GET", path, token=reply.body.get("token", ""))

    assert reply.status == 200, reply.body
    assert pods[0] == 200
    record = federated.last_record("ci")
    assert (record["proof"], record["proof_subject"]) == ("oidc", "repo:octo-org/shop:environment:production")


async def test_its_own_claims_that_do_not_match_are_named(federated: Federated) -> None:
    """The names, and neither what was wanted nor anything else; the client's owner sees an Event."""
    reply = await federated.ask(federated.jwt(repository_id="1", environment="test"))

    assert (reply.status, reply.body["code"]) == (403, "proof_claims_mismatch")
    assert reply.body["detail"].endswith(": environment, repository_id.")
    assert "123456" not in json.dumps(reply.body)

    async def told() -> bool:
        _, events = await federated.lab.cluster.request("GET", "/apis/events.k8s.io/v1/namespaces/federated/events")
        return "ProofMismatch" in {event["reason"] for event in events["items"]}

    await until(told, what="the Event is there")


async def test_each_value_that_is_listed_counts(federated: Federated) -> None:
    """Any one of them, as a text or among texts."""
    assert await federated.outcome(federated.jwt(environment="staging")) == (200, "issued")
    assert await federated.outcome(federated.jwt(environment=["test", "staging"])) == (200, "issued")


async def test_a_caller_whom_the_operator_does_not_mean_learns_nothing(federated: Federated) -> None:
    """A JWT of the same issuer and another owner is a stranger's, whichever client it names."""
    stranger = federated.jwt(repository_owner_id="43")
    answers = [await federated.ask(stranger, client) for client in ("ci", "signer", "nobody")]

    assert [(answer.status, answer.body["code"]) for answer in answers] == [(401, "invalid_client")] * 3
    assert len({answer.body["detail"] for answer in answers}) == 1


async def test_the_client_has_to_be_named(federated: Federated) -> None:
    """The broker does not search for whom a JWT might fit."""
    headers = {"Authorization": f"Bearer {federated.jwt()}"}
    reply = await federated.broker.call("POST", "/v1/tokens", {}, headers=headers)
    grants = await federated.broker.call("GET", "/v1/grants", headers=headers)
    named = await federated.broker.call("GET", "/v1/grants?client=federated/ci", headers=headers)

    assert [(one.status, one.body.get("code")) for one in (reply, grants)] == [(400, "invalid_request")] * 2
    assert (named.status, named.body["client"]) == (200, "federated/ci")


async def test_keys_are_fetched_once(federated: Federated) -> None:
    """Known keys go on without another request to the issuer."""
    await federated.ask(federated.jwt())
    before = len(federated.issuer.asked)
    assert await federated.outcome(federated.jwt()) == (200, "issued")

    assert len(federated.issuer.asked) == before


async def test_an_issuer_that_is_down_hurts_its_own_clients_only(federated: Federated) -> None:
    """Those are told to come back, and everybody else is served meanwhile."""
    await federated.ask(federated.jwt())
    started = time.monotonic()
    outcomes = await asyncio.gather(
        *(federated.outcome(federated.jwt(iss=AWAY)) for _ in range(10)),
        *(federated.outcome(federated.jwt()) for _ in range(10)),
    )

    assert outcomes == [(503, "issuer_unavailable")] * 10 + [(200, "issued")] * 10
    assert time.monotonic() - started < 5
    assert f'{{issuer="{AWAY}",outcome="failure"}}' in await federated.broker.metrics()
