"""``dry_run``: a client is told why it gets what it gets, and nothing is handed out."""

from typing import Any

import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.lab import Lab
from tests.support.processes import until

GRANTS: tuple[dict[str, Any], ...] = (
    {"name": "read", "serviceAccount": {"name": "reader"}, "audiences": ["https://a.example", "b"]},
    {"name": "kept", "serviceAccount": {"name": "reader"}, "vault": {"ttl": "1h"}},
    {"name": "gone", "serviceAccount": {"name": "nobody"}},
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def caller(installed: Lab, broker: BrokerProcess) -> Registered:
    """Register a client with grants that work and one that does not."""
    tenant = await Tenant.create(installed.cluster, "dry-run")
    await tenant.account("reader")
    await tenant.allow_minting("nobody")
    made = await tenant.client("caller", *GRANTS)

    async def tried() -> bool:
        works = await broker.call("POST", "/v1/tokens", {"grant": "read"}, auth=made.auth)
        fails = await broker.call("POST", "/v1/tokens", {"grant": "gone"}, auth=made.auth)
        return (works.status, fails.body.get("code")) == (200, "service_account_missing")

    await until(tried, what="the grants were tried", programs=(broker.program,))
    return made


async def explained(broker: BrokerProcess, caller: Registered, **asked: Any) -> dict[str, Any]:
    """Return what is said of a request."""
    reply = await broker.call("POST", "/v1/tokens", {"dry_run": True, **asked}, auth=caller.auth)
    assert (reply.status, reply.body["dry_run"]) == (200, True), reply.body
    body: dict[str, Any] = reply.body
    return body


async def test_every_step_of_a_request_that_would_be_granted(broker: BrokerProcess, caller: Registered) -> None:
    """In the order in which they are taken, with what each comes to."""
    said = await explained(broker, caller, grant="read", audience="b", ttl="20m")

    assert (said["allowed"], said["code"]) == (True, None)
    assert {step["step"]: step["detail"] for step in said["steps"]} == {
        "proof": "Proved by clientSecret.",
        "standing": "The client is not suspended, and has no end.",
        "grant": "read, as asked for: the account reader.",
        "permission": "A grant of this kind is allowed.",
        "audience": "b, as asked for.",
        "ttl": "20m, as asked for; the API server may shorten it.",
        "rate": "There is no limit on how many tokens it gets.",
        "ready": "The grant is prepared, and its last trial succeeded.",
    }
    assert all(step["ok"] for step in said["steps"])


@pytest.mark.parametrize(
    ("asked", "step", "code"),
    [
        ({}, "grant", "grant_required"),
        ({"grant": "other"}, "grant", "grant_unknown"),
        ({"grant": "read", "audience": "c"}, "audience", "audience_not_allowed"),
        ({"grant": "read", "ttl": "2h"}, "ttl", "ttl_out_of_range"),
        ({"grant": "gone"}, "ready", "service_account_missing"),
        ({"grant": "read", "deliver": "vault"}, "delivery", "delivery_not_configured"),
        ({"grant": "kept", "deliver": "vault", "ttl": "20m"}, "delivery", "invalid_request"),
    ],
    ids=str,
)
async def test_the_first_step_that_stands_in_the_way(
    broker: BrokerProcess, caller: Registered, asked: dict[str, str], step: str, code: str
) -> None:
    """It is the last one, and its code is the one that the request itself gets."""
    said = await explained(broker, caller, **asked)
    refused = await broker.call("POST", "/v1/tokens", asked, auth=caller.auth)

    assert (said["allowed"], said["code"]) == (False, code)
    assert (said["steps"][-1]["step"], said["steps"][-1]["ok"]) == (step, False)
    assert all(one["ok"] for one in said["steps"][:-1])
    assert refused.body["code"] == code
    assert ("limits" in said) == ("limits" in refused.body)


async def test_delivery_to_vault_is_explained(broker: BrokerProcess, caller: Registered) -> None:
    """Its audience and life are the grant's, so there is nothing to decide about them."""
    said = await explained(broker, caller, grant="kept", deliver="vault")

    assert said["allowed"]
    decided = ["proof", "standing", "grant", "permission", "delivery"]
    assert [step["step"] for step in said["steps"]] == [*decided, "rate", "ready"]


async def test_nothing_is_handed_out_or_written_down(broker: BrokerProcess, caller: Registered) -> None:
    """No token, no record in the audit log, no count of a token or a refusal."""
    before = broker.records(caller.id), await counts(broker, caller)
    for asked in ({"grant": "read"}, {"grant": "other"}, {"grant": "kept", "deliver": "vault"}):
        said = await explained(broker, caller, **asked)
        assert "token" not in said

    assert (broker.records(caller.id), await counts(broker, caller)) == before


async def counts(broker: BrokerProcess, caller: Registered) -> list[str]:
    """Return what the metrics count of the client."""
    namespace, name = caller.id.split("/")
    lines = (await broker.metrics()).splitlines()
    return [line for line in lines if f'client="{name}"' in line and f'namespace="{namespace}"' in line]


async def test_a_suspended_client_is_told_so(broker: BrokerProcess, tenant: Tenant) -> None:
    """And no more than that."""
    client = await tenant.ready_client("caller")
    await tenant.patch("caller", {"suspend": True})
    await tenant.until_reason("caller", "Suspended")
    said = await explained(broker, client)

    assert (said["code"], [step["step"] for step in said["steps"]]) == ("client_suspended", ["proof", "standing"])


async def test_strangers_are_explained_nothing(broker: BrokerProcess, caller: Registered) -> None:
    """The proof comes first."""
    reply = await broker.call("POST", "/v1/tokens", {"dry_run": True}, auth=(caller.id, "x"))

    assert (reply.status, reply.body["code"]) == (401, "invalid_client")
