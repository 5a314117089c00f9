"""Every way to end tokens, at the real API server: after how many seconds it refuses them, and what lives on."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Tenant
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.revocations import (
    ALL,
    GRANTS,
    SINGLE,
    TOGETHER,
    VAULT,
    Act,
    Holder,
    Outcome,
    Way,
    handed_out,
    in_vault,
    tried,
    until_served,
)

PROMISED_SECONDS = 15.0


async def delete_by_id(holder: Holder) -> None:
    """DELETE /v1/tokens/{id}."""
    reply = await holder.broker.call("DELETE", f"/v1/tokens/{holder.token_id}", auth=holder.client.auth)
    assert (reply.status, reply.body) == (204, "")


async def revoke_by_token(holder: Holder) -> None:
    """POST /oauth2/revoke (RFC 7009)."""
    form = f"token={holder.tokens[SINGLE]}".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = await holder.broker.call("POST", "/oauth2/revoke", auth=holder.client.auth, data=form, headers=headers)
    assert reply.status == 200


def revoke_all(*options: str) -> Act:
    """``tokenbroker client revoke-all``: the time runs from when its anchors are gone."""

    async def act(holder: Holder) -> None:
        before = await holder.anchors("grant")
        running = asyncio.create_task(holder.command("client", "revoke-all", *options))

        async def gone() -> bool:
            return not before & await holder.anchors("grant")

        await until(gone, what="the anchors are deleted")
        holder.said.append(running)

    return act


async def suspend(holder: Holder) -> None:
    """``spec.suspend: true``."""
    await holder.patch(suspend=True)


async def not_after(holder: Holder) -> None:
    """``spec.notAfter`` passes."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    await holder.patch(notAfter=end.isoformat().replace("+00:00", "Z"))
    await asyncio.sleep((end - datetime.now(UTC)).total_seconds())  # time itself is what ends it


async def delete_client(holder: Holder) -> None:
    """``kubectl delete``, which lets the garbage collector work in the background."""
    await holder.lab.cluster.request("DELETE", f"{holder.tenant.path}/web")


async def orphan_client(holder: Holder) -> None:
    """``kubectl delete --cascade=orphan``, which leaves what the TokenClient owns."""
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    await holder.lab.cluster.request("DELETE", f"{holder.tenant.path}/web", options)


async def delete_namespace(holder: Holder) -> None:
    """Delete the namespace."""
    await holder.lab.cluster.request("DELETE", holder.namespace)


async def recreate_account(holder: Holder) -> None:
    """Delete the account, and make one of the same name."""
    accounts = f"{holder.namespace}/serviceaccounts"
    await holder.lab.cluster.request("DELETE", f"{accounts}/reader")
    status, _ = await holder.lab.cluster.request("POST", accounts, {"metadata": {"name": "reader"}})
    assert status == 201


async def remove_grant(holder: Holder) -> None:
    """Take a grant out of the TokenClient."""
    await holder.patch(grants=GRANTS[:1])


async def change_account(holder: Holder) -> None:
    """Let a grant be for another account."""
    await holder.patch(grants=[GRANTS[0], GRANTS[1] | {"serviceAccount": {"name": "other"}}])


ONE, HANDED_OUT, OF_GRANT = frozenset({SINGLE}), frozenset({SINGLE, TOGETHER}), frozenset({TOGETHER, VAULT})
WAYS = {
    "delete_by_id": Way(delete_by_id, ONE),
    "oauth2_revoke": Way(revoke_by_token, ONE),
    "revoke_all": Way(revoke_all(), HANDED_OUT),
    "revoke_all_now": Way(revoke_all("--now")),
    "suspend": Way(suspend),
    "not_after": Way(not_after),
    "client_deleted": Way(delete_client),
    "client_orphaned": Way(orphan_client),
    "namespace_deleted": Way(delete_namespace, spares_others=False),
    "account_recreated": Way(recreate_account),
    "grant_removed": Way(remove_grant, OF_GRANT),
    "account_changed": Way(change_account, OF_GRANT),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outcomes(installed: Lab, broker: BrokerProcess) -> dict[str, Outcome]:
    """Try all ways at once: each takes its ten seconds, and none is in the way of another."""
    made = await asyncio.gather(*(tried(installed, broker, name, way) for name, way in WAYS.items()))
    return dict(zip(WAYS, made, strict=True))


@pytest.mark.parametrize("name", WAYS)
async def test_tokens_are_refused_in_time(
    name: str, outcomes: dict[str, Outcome], record_property: Callable[[str, object], None]
) -> None:
    """The API server refuses what was ended within 15 s; all else works on, and other clients notice nothing."""
    way, outcome = WAYS[name], outcomes[name]
    record_property("refused", f"{name}: {outcome.told}")
    others = {f"other:{one}" for one in ALL} if way.spares_others else set()

    assert outcome.seconds.keys() == way.ends
    assert max(outcome.seconds.values()) <= PROMISED_SECONDS
    assert outcome.alive == (ALL - way.ends) | others


@pytest.mark.parametrize("name", ["revoke_all", "revoke_all_now", "account_recreated", "account_changed"])
async def test_the_client_goes_on_with_new_tokens(name: str, outcomes: dict[str, Outcome]) -> None:
    """New ones are handed out, and the one in Vault works."""
    holder = outcomes[name].holder

    async def served() -> bool:
        replies = [
            await holder.broker.call("POST", "/v1/tokens", {"grant": one}, auth=holder.client.auth)
            for one in (SINGLE, TOGETHER)
        ]
        return all(reply.status == 200 for reply in replies)

    await until(served, what="tokens are handed out")
    _, tokens = await handed_out(holder.lab, holder.broker, holder.client)
    assert [await holder.works(tokens[one]) for one in (SINGLE, TOGETHER)] == [True, True]
    await until_vault_works(holder)


@pytest.mark.parametrize("name", ["revoke_all", "revoke_all_now"])
async def test_revoke_all_waits_until_the_broker_has_moved_on(name: str, outcomes: dict[str, Outcome]) -> None:
    """The command says what it deleted and what it has seen."""
    (running,) = outcomes[name].holder.said
    code, told = await running

    assert code == 0, told
    assert "anchors: what was handed out is refused within about 15 s" in told
    assert "the broker has made new anchors, and new versions in Vault" in told


@pytest.mark.parametrize("name", ["client_deleted", "client_orphaned"])
async def test_nothing_is_left_of_a_deleted_client(name: str, outcomes: dict[str, Outcome]) -> None:
    """The finalizer goes, the TokenClient with it, and no anchor stays; Vault is cleared."""
    holder = outcomes[name].holder

    async def gone() -> bool:
        status, _ = await holder.lab.cluster.request("GET", f"{holder.tenant.path}/web")
        return status == 404 and not await holder.anchors() and await in_vault(holder.lab, holder.client.id) is None

    await until(gone, what="nothing is left")
    assert await gone()


async def test_a_namespace_that_was_made_again_knows_none_of_the_old_tokens(outcomes: dict[str, Outcome]) -> None:
    """The same names, other UIDs: new tokens work there, the old ones stay refused."""
    holder = outcomes["namespace_deleted"].holder

    async def gone() -> bool:
        return (await holder.lab.cluster.request("GET", holder.namespace))[0] == 404

    await until(gone, what="the namespace is gone", seconds=60)
    tenant = await Tenant.create(holder.lab.cluster, holder.tenant.namespace)
    await tenant.account("reader")
    client = await tenant.client("web", *GRANTS)
    await until_served(holder.lab, holder.broker, tenant, "web")
    _, tokens = await handed_out(holder.lab, holder.broker, client)

    assert await holder.works(tokens[SINGLE])
    assert await holder.alive() == set()


async def test_a_suspended_client_has_no_anchor_and_gets_new_ones(outcomes: dict[str, Outcome]) -> None:
    """Resuming makes new anchors and a new version in Vault; what had ended stays so."""
    holder = outcomes["suspend"].holder
    assert await holder.anchors() == set()
    await holder.patch(suspend=None)
    await until_vault_works(holder)
    await holder.broker.until_ready(holder.client.id)
    _, tokens = await handed_out(holder.lab, holder.broker, holder.client)

    assert await holder.works(tokens[SINGLE])
    assert {one for one in await holder.alive() if one in ALL} == set()


async def until_vault_works(holder: Holder) -> None:
    """Wait until readers of Vault get a token that works."""

    async def good() -> bool:
        token = await in_vault(holder.lab, holder.client.id)
        return token is not None and await holder.works(token)

    await until(good, what="the token in Vault works")
