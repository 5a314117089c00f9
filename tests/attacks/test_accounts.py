"""ServiceAccounts of the cluster that prove a client: only with a live token, for us, of that very account."""

import asyncio

from broker.identity.service_account import CACHE_SECONDS
from tests.support.federated import NAMESPACE, Federated
from tests.support.marks import own_cluster
from tests.support.processes import until


async def test_an_account_gets_a_token(federated: Federated) -> None:
    """A pod's projected token for the broker's URL is all that it takes; the audit record names the account."""
    assert await federated.outcome(await federated.account_token(), "pod") == (200, "issued")

    assert federated.last_record("pod")["proof_subject"] == "system:serviceaccount:federated:runner"


async def test_another_account(federated: Federated) -> None:
    """The same namespace, another name: no client of his, and no client of nobody's."""
    await federated.account("other")
    token = await federated.account_token("other")

    for client in ("pod", "ci", "signer", "nobody"):
        assert await federated.outcome(token, client) == (401, "invalid_client")


async def test_account_that_was_made_again(federated: Federated) -> None:
    """The name is the same and the account another one: 403 says so, and the owner sees an Event."""
    await federated.register("again", {"serviceAccount": await federated.account("again")})
    old = await federated.account_token("again")
    assert await federated.outcome(old, "again") == (200, "issued")
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    await federated.lab.cluster.request("DELETE", f"{path}/again")
    await federated.account("again")

    assert await federated.outcome(await federated.account_token("again"), "again") == (403, "proof_account_replaced")

    async def told() -> bool:
        _, events = await federated.lab.cluster.request("GET", f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")
        return "ProofAccountReplaced" in {event["reason"] for event in events["items"]}

    await until(told, what="the Event is there")


async def test_account_that_was_deleted(federated: Federated) -> None:
    """Its old token is refused within seconds, though it would live for an hour: the API server is asked."""
    await federated.register("gone", {"serviceAccount": await federated.account("gone")})
    token = await federated.account_token("gone")
    assert await federated.outcome(token, "gone") == (200, "issued")
    await federated.lab.cluster.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/gone")

    async def refused() -> bool:
        return await federated.outcome(token, "gone") == (401, "invalid_client")

    # The API server itself remembers a token that it has accepted for 10 s, the broker for CACHE_SECONDS.
    await until(refused, what="the token of a deleted account is refused", seconds=20 + CACHE_SECONDS)


@own_cluster
async def test_the_api_servers_word_is_remembered_for_a_moment(federated: Federated) -> None:
    """One TokenReview serves a burst, and not for longer than a few seconds."""
    token = await federated.account_token()
    before = await federated.reviews()
    for _ in range(10):
        assert await federated.outcome(token, "pod") == (200, "issued")
    burst = await federated.reviews() - before
    await asyncio.sleep(CACHE_SECONDS)
    assert await federated.outcome(token, "pod") == (200, "issued")

    assert burst <= 2
    assert await federated.reviews() - before > burst
    assert CACHE_SECONDS <= 5


@own_cluster
async def test_made_up_tokens_cost_no_call(federated: Federated) -> None:
    """The signature is looked at before the API server is asked."""
    header, claims, signature = (await federated.account_token()).split(".")
    before = await federated.reviews()
    for number in range(20):
        forged = f"{header}.{claims}.{signature[:-6]}{number:06d}"
        assert await federated.outcome(forged, "pod") == (401, "invalid_client")

    assert await federated.reviews() == before
