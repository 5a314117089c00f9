"""A client ends its own tokens, one by one where that can be done, and learns nothing of others; among fakes."""

from dataclasses import replace

import pytest

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin, Revoked
from broker.model.client import Client
from broker.model.sensitive import Sensitive
from tests.support.endings import OTHER, SINGLY, TOGETHER, WEB, EndingWorld, other, web
from tests.support.rotation import grant

ORIGIN = Origin("r")
NO_ID = "0123456789abcdef01234567"


@pytest.fixture
async def world() -> EndingWorld:
    """Return a world with two clients that are served."""
    world = EndingWorld()
    world.register(web())
    world.register(other())
    await world.settle()
    return world


async def by_id(world: EndingWorld, token_id: str, client: Client | None = None) -> list[str]:
    """Revoke by id, and return the calls."""
    world.power.calls.clear()
    await world.revoker.by_id(client or web(), token_id, ORIGIN)
    return list(world.power.calls)


async def by_token(world: EndingWorld, token: str, client: Client | None = None) -> list[str]:
    """Revoke by the token itself, and return the calls."""
    world.power.calls.clear()
    await world.revoker.by_token(client or web(), Sensitive(token), ORIGIN)
    return list(world.power.calls)


def counted(world: EndingWorld) -> float:
    """Return how many tokens of the client were revoked, by the counter."""
    labels = {"namespace": WEB.namespace, "client": WEB.name, "grant": SINGLY}
    return world.metrics.registry.get_sample_value("tokenbroker_tokens_revoked_total", labels) or 0.0


@pytest.mark.parametrize("way", [0, 1], ids=["by id", "by token"])
async def test_one_token_ends_and_is_written_down_once(world: EndingWorld, way: int) -> None:
    """Revoked again, nothing happens any more, and nothing is said of it."""
    ended, kept = await world.issue(), await world.issue()
    for _ in range(2):
        await (by_id, by_token)[way](world, ended[way])

    assert not world.accepts(ended[1])
    assert world.accepts(kept[1])
    assert world.audit.ended == [Revoked(world.clock.now(), ORIGIN, WEB, SINGLY, ended[0], "by_client")]
    assert counted(world) == 1


async def test_a_foreign_token_is_like_one_that_never_was(world: EndingWorld) -> None:
    """The same calls, no answer of its own, and it lives on."""
    foreign, foreign_token = await world.issue(OTHER)
    calls = await by_id(world, foreign), await by_id(world, NO_ID)
    shown = await by_token(world, foreign_token), await by_token(world, "token-of-nobody")

    assert calls == (["delete", "delete"], ["delete", "delete"])
    assert shown == (["review"], ["review"])
    assert world.accepts(foreign_token)
    assert world.audit.ended == []
    assert counted(world) == 0


async def test_each_grant_is_tried(world: EndingWorld) -> None:
    """An id does not say of which grant it is, nor how that grant revoked when it was issued."""
    both = (*web().grants, grant(name="more", revocation=web().grants[0].revocation, vault=None))
    more = web(grants=both, generation=2)
    world.register(more)
    await world.settle()
    token_id, token = await world.issue(grant_name="more")
    calls = await by_id(world, token_id, more)

    assert calls == ["delete", "delete", "delete"]
    assert not world.accepts(token)
    assert [record.grant for record in world.audit.ended] == ["more"]


async def test_a_token_that_shares_its_end_is_not_ended(world: EndingWorld) -> None:
    """Neither one of a grant that revokes by Grant, nor the copy in Vault of one that revokes by Token."""
    _, shared = await world.issue(grant_name=TOGETHER)
    in_vault = world.in_vault()
    assert in_vault is not None
    for token in (shared, in_vault):
        with pytest.raises(BrokerError, match="not_individually_revocable"):
            await by_token(world, token)
        assert world.accepts(token)
    assert world.audit.ended == []


async def test_a_token_of_an_account_that_the_grant_has_no_more_is_not_the_clients(world: EndingWorld) -> None:
    """It ends with the change; nobody is told about it meanwhile."""
    _, token = await world.issue()
    first, second = web().grants
    changed = web(grants=(replace(first, service_account="next"), second))

    assert await by_token(world, token, changed) == ["review"]
    assert world.accepts(token)


async def test_a_token_that_could_not_be_ended_is_not_written_down(world: EndingWorld) -> None:
    """Its client gets the fault, and may ask again."""
    token_id, token = await world.issue()
    world.cluster.delete_fault = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
    with pytest.raises(BrokerError, match="kubernetes_unavailable"):
        await by_id(world, token_id)
    before = list(world.audit.ended)
    world.cluster.delete_fault = None
    await by_id(world, token_id)

    assert (before, len(world.audit.ended)) == ([], 1)
    assert not world.accepts(token)
