"""Of two replicas only the leader looks at accounts; the other issues by what it found, and takes nothing back."""

from collections.abc import AsyncIterator

import pytest_asyncio

from broker.config import load
from tests.support.accounts import Account, rule, until_dead, until_issued, until_refused, works
from tests.support.broker import CONFIG, BrokerProcess
from tests.verification.conftest import LIMITS, Limited


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def follower(limited: Limited) -> AsyncIterator[BrokerProcess]:
    """Run another replica of the broker."""
    lease = load(limited.broker.folder / CONFIG).lease
    named = {"name": lease.name, "duration_seconds": lease.duration_seconds}
    async with BrokerProcess.start(limited.lab, "follower", lease=named, limits=LIMITS) as broker:
        yield broker


async def test_what_the_leader_found_stays_in_the_status(limited: Limited, follower: BrokerProcess) -> None:
    """The other replica issues, and writes no status and no Event of its own."""
    account = await Account.create(await limited.tenant("two-replicas"), "reader", rule("get,list", "pods"))
    client = await account.client(expect={"deny": ["get configmaps"]})
    await account.until_condition("AccessVerified", "True", "Verified")
    before = await resource_version(account)
    token = await until_issued(follower, client)

    assert await works(limited.cluster, token)
    assert await resource_version(account) == before
    assert len(await account.events("Verified")) == 1


async def test_what_the_leader_finds_ends_tokens_of_the_other_replica(
    limited: Limited, follower: BrokerProcess
) -> None:
    """The anchor is the same; without it the other replica says that the grant is not prepared."""
    account = await Account.create(await limited.tenant("two-ends"), "reader", rule("get,list", "pods"))
    client = await account.client(expect={"deny": ["get configmaps"]})
    await account.until_condition("Ready", "True", "Ready")
    token = await until_issued(follower, client)
    await account.grant("more", rule("get", "configmaps"))
    await account.touch()
    seconds = await until_dead(limited.cluster, token)
    await until_refused(follower, client, "anchor_missing")
    await until_refused(limited.broker, client, "access_not_as_declared")

    assert await account.anchors() == []
    print(f"\nof another replica: token refused {seconds:.1f} s after the spec was touched")  # noqa: T201


async def resource_version(account: Account) -> str:
    """Return what changes with each write of the client."""
    _, resource = await account.tenant.cluster.request("GET", f"{account.tenant.path}/{account.name}")
    return str(resource["metadata"]["resourceVersion"])
