"""What the operator allows in a namespace, whoever writes TokenClients there, and whenever its labels change."""

from typing import Any

import pytest

from broker.kube.token_requests import unverified_claims
from tests.support.accounts import Account, ask, issued, rule, until_dead, until_issued, until_refused, works
from tests.support.broker import Tenant
from tests.verification.conftest import Limited

READS = rule("get,list", "pods")
OPT_IN, UNBOUND = "tokenbroker.dev/clients", "tokenbroker.dev/unbound-tokens"


async def label(tenant: Tenant, **labels: str | None) -> None:
    """Set labels of the namespace; None takes one away."""
    named = {{"opt_in": OPT_IN, "unbound": UNBOUND}.get(name, name): value for name, value in labels.items()}
    body = {"metadata": {"labels": named}}
    status, answer = await tenant.cluster.request("PATCH", f"/api/v1/namespaces/{tenant.namespace}", body)
    assert status == 200, answer


async def test_longest_life_by_name(limited: Limited) -> None:
    """A grant that may be longer is refused whole, in words; so is one whose copy in Vault lives longer."""
    tenant = await limited.tenant("short")
    for number, grant in enumerate(({}, {"ttl": {"max": "30m"}, "vault": {"ttl": "31m"}})):
        account = await Account.create(tenant, f"long-{number}", READS)
        await account.client(**grant)
        condition = await account.until_condition("Ready", "False", "LimitsExceeded")
        assert "tokens of 30m at most in this namespace" in condition["message"]
        assert len(await account.events("LimitsExceeded")) == 1
        assert await account.anchors() == []


async def test_proof_of_a_kind_that_does_not_count(limited: Limited) -> None:
    """Its caller is a stranger; the owner sees why. Where the namespace is another one, the same secret counts."""
    account = await Account.create(await limited.tenant("no-secrets"), "by-secret", READS)
    client = await account.client(ttl={"max": "30m"})
    condition = await account.until_condition("ProofsAccepted", "False", "ProofNotAccepted")
    await account.until_condition("Ready", "False", "ProofNotAccepted")
    reply = await ask(limited.broker, client)

    assert (reply.status, reply.body["code"]) == (401, "invalid_client")
    assert "clientSecret: the broker's operator does not let" in condition["message"]
    assert len(await account.events("ProofNotAccepted")) == 1


async def test_label_that_bounds_a_namespace_takes_effect_at_once(limited: Limited) -> None:
    """Set while a token lives, it is ended; taken away, the client is served again."""
    tenant = await limited.tenant("moves")
    account = await Account.create(tenant, "reader", READS)
    client = await account.client(ttl={"max": "30m"})
    await account.until_condition("Ready", "True", "Ready")
    token = await issued(limited.broker, client)
    assert await works(limited.cluster, token)  # and the API server remembers that
    await label(tenant, tier="lab")
    await until_refused(limited.broker, client, "limits_exceeded")
    seconds = await until_dead(limited.cluster, token)
    await account.until_condition("Ready", "False", "LimitsExceeded")
    await account.until_without_anchors()
    await label(tenant, tier=None)
    again = await until_issued(limited.broker, client)

    print(f"\nlimit set: token refused {seconds:.1f} s after the broker refused its client")  # noqa: T201
    assert await works(limited.cluster, again)


async def test_namespace_that_is_no_longer_opted_in(limited: Limited) -> None:
    """Its tokens end and nothing is issued; opted in again, its clients are served again."""
    tenant = await limited.tenant("opts-out")
    account = await Account.create(tenant, "reader", READS)
    client = await account.client()
    await account.until_condition("Ready", "True", "Ready")
    token = await issued(limited.broker, client)
    assert await works(limited.cluster, token)  # and the API server remembers that
    await label(tenant, opt_in="disabled")
    reply = await until_refused(limited.broker, client, "grant_forbidden")
    seconds = await until_dead(limited.cluster, token)
    condition = await account.until_condition("Ready", "False", "GrantForbidden")
    await account.until_without_anchors()
    await label(tenant, opt_in="enabled")
    again = await until_issued(limited.broker, client)

    print(f"\nopted out: token refused {seconds:.1f} s after the broker refused its client")  # noqa: T201
    assert reply.status == 403
    assert "kubectl label namespace opts-out tokenbroker.dev/clients=enabled" in condition["message"]
    assert await works(limited.cluster, again)
    await account.until_condition("Ready", "True", "Ready")


async def test_first_entry_that_matches_counts(limited: Limited) -> None:
    """The namespace is named twice; the narrower entry comes too late."""
    account = await Account.create(await limited.tenant("labelled"), "reader", READS)
    client = await account.client(ttl={"default": "20m", "max": "1h"})
    await account.until_condition("Ready", "True", "Ready")

    assert (await ask(limited.broker, client, ttl="1h")).status == 200


async def test_tokens_that_only_expire_take_both_words(limited: Limited) -> None:
    """The operator's limit alone is not enough, the label is needed; the token is then bound to nothing."""
    tenant = await limited.tenant("unbound")
    account = await Account.create(tenant, "unbound", READS)
    client = await account.client(revocation="None")
    condition = await account.until_condition("Ready", "False", "LimitsExceeded")
    first = await until_refused(limited.broker, client, "limits_exceeded")
    await label(tenant, unbound="allowed")
    token = await until_issued(limited.broker, client)
    await account.until_condition("Ready", "True", "Ready")
    await label(tenant, unbound=None)
    await until_refused(limited.broker, client, "limits_exceeded")

    assert first.status == 403
    assert "unbound_tokens" in condition["message"]
    assert f"{UNBOUND}=allowed" in condition["message"]
    assert "secret" not in unverified_claims(token)["kubernetes.io"]
    assert await works(limited.cluster, token)


async def test_label_alone_allows_no_token_that_only_expires(limited: Limited) -> None:
    """Who may label a namespace is not the operator of the broker."""
    tenant = await limited.tenant("label-alone")
    await label(tenant, unbound="allowed")
    account = await Account.create(tenant, "reader", READS)
    client = await account.client(revocation="None")
    await account.until_condition("Ready", "False", "LimitsExceeded")

    assert (await ask(limited.broker, client)).body["code"] == "limits_exceeded"


@pytest.mark.parametrize("grant", [{"revocation": "Grant"}, {"revocation": "Token"}])
async def test_what_nothing_bounds_is_served(grant: dict[str, Any], limited: Limited) -> None:
    """A namespace that no entry matches."""
    account = await Account.create(await limited.tenant(f"free-{grant['revocation'].lower()}"), "reader", READS)
    client = await account.client(**grant)

    assert await works(limited.cluster, await until_issued(limited.broker, client))
