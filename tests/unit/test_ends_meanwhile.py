"""What happens while something has to end: nothing good dies of it, nothing is said too soon or forgotten."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import AnchorId, grant_anchor, vault_anchor
from broker.model.client import Client, ClientId, Expect
from broker.model.former_grants import listed_anchor
from broker.model.limits import NamespaceLimits
from broker.model.prepared import Prepared
from broker.model.token import Anchor
from broker.ports import Registration
from tests.support.endings import (
    AWAY,
    FINALIZER,
    FORBIDDEN,
    OTHER,
    SINGLY,
    TOGETHER,
    WEB,
    EndingWorld,
    other,
    web,
)
from tests.support.rotation import KEY, grant

THERE_AND_BACK = pytest.mark.parametrize(
    "change", [{"suspended": True}, {"grants": web().grants[1:]}], ids=["suspended", "taken out"]
)


@pytest.fixture
async def world() -> EndingWorld:
    """Return a world with one client that is served, and whose registration was seen."""
    world = EndingWorld()
    world.register(web())
    world.reconciler.changed(WEB)
    world.rotator.changed(WEB)
    await world.settle()
    return world


def invalid(world: EndingWorld, *, suspended: bool) -> None:
    """Let the client's specification become one that cannot be read."""
    known = world.cluster.get(WEB)
    assert known is not None
    fault = Fault(Reason.INVALID_REQUEST, "spec: no")

    def get(client_id: ClientId) -> Registration | None:
        assert known is not None
        status = world.cluster.resources[WEB].status
        broken = replace(known, client=None, fault=fault, suspended=suspended, generation=9, status=status)
        return broken if client_id == WEB else None

    world.cluster.get = get  # type: ignore[method-assign]
    world.reconciler.changed(WEB)


async def visit(world: EndingWorld) -> None:
    """Visit the client, however that goes."""
    for work in (world.reconciler.hurry, world.reconciler.visit):
        with suppress(BrokerError):
            await work(WEB)


def ready(world: EndingWorld) -> tuple[str, int]:
    """Return the reason of the condition Ready, and of which generation it is."""
    status = world.cluster.resources[WEB].status
    return status["conditions"][0]["reason"], status["observedGeneration"]


@THERE_AND_BACK
async def test_vault_gets_a_token_that_works_after_a_change_that_was_taken_back(
    world: EndingWorld, change: dict[str, object]
) -> None:
    """Also where the copy was looked at just before its token was ended, and found to be good."""
    world.change(**change)
    world.change()
    await world.rotator.visit(KEY)
    world.rotator.queue.forget(KEY)
    await visit(world)
    assert len(world.rotator.queue) == 1
    await world.rotator.visit(KEY)

    token = world.in_vault()
    assert token is not None
    assert world.accepts(token)


@THERE_AND_BACK
async def test_nothing_is_issued_that_would_end_with_what_is_owed(
    world: EndingWorld, change: dict[str, object]
) -> None:
    """Not between the change that was taken back and the visit; other grants are served meanwhile."""
    world.change(**change)
    world.change()
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.issue()
    if "grants" in change:
        token = (await world.issue(grant_name=TOGETHER))[1]
        await world.settle()
        assert world.accepts(token)


async def test_who_leads_no_more_ends_nothing_more(world: EndingWorld) -> None:
    """Not even the rest of what it has begun: the next leader may have made the very anchor anew."""
    delete, calls = world.cluster.delete, list[str]()

    async def lose(namespace: str, name: str, uid: str | None = None) -> bool:
        calls.append(name)
        world.cluster.leading = False
        world.reconciler.stand_back()
        return await delete(namespace, name, uid)

    world.cluster.delete = lose  # type: ignore[method-assign]
    world.change(suspended=True)
    await visit(world)

    assert len(calls) == 1


async def test_a_copy_is_asked_for_though_the_visit_was_given_up_after_its_grant_was_ready(world: EndingWorld) -> None:
    """While old buckets are swept, which may take long."""
    world.restart()
    world.reconciler.changed(WEB)
    world.rotator.changed(WEB)
    world.rotator.queue.forget(KEY)
    world.book.forget(WEB)  # as where the leader before has not looked at it yet
    sweep = world.tokens.sweep

    async def cut(client: Client, prepared: Prepared) -> None:
        del client, prepared
        raise asyncio.CancelledError

    world.tokens.sweep = cut  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await world.reconciler.visit(WEB)
    world.tokens.sweep = sweep  # type: ignore[method-assign]

    assert len(world.rotator.queue) == 1


async def test_what_is_owed_stays_so_where_the_operator_forbids_the_grant_as_well(world: EndingWorld) -> None:
    """A broker that was started anew knows of no anchor: that it owes an end says enough."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.restart()
    world.cluster.delete_fault = FORBIDDEN
    world.register(web(generation=2, suspended=True))
    world.reconciler.changed(WEB)
    await visit(world)
    world.change()
    world.limits = NamespaceLimits(max_ttl_seconds=1)
    await visit(world)
    owed = world.orphans()
    world.limits, world.cluster.delete_fault = NamespaceLimits(), None
    await visit(world)

    assert owed == 2
    assert not world.accepts(token)


async def test_what_is_owed_is_paid_though_the_client_is_not_valid_any_more(world: EndingWorld) -> None:
    """Suspended in vain, and then edited to what cannot be read, without suspend."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.delete_fault = AWAY
    world.change(suspended=True)
    await visit(world)
    invalid(world, suspended=False)
    world.cluster.delete_fault = None
    await visit(world)

    assert not world.accepts(token)
    assert world.orphans() == 0


async def test_an_invalid_client_is_not_said_to_be_done_before_its_tokens_have_ended(world: EndingWorld) -> None:
    """Not by a look at the status that comes in between, nor by a leader that has just begun."""
    invalid(world, suspended=True)
    await world.board.write(WEB)
    before = ready(world)
    world.cluster.delete_fault = AWAY
    await visit(world)
    await world.board.write(WEB)
    trying = ready(world)
    for leading in (False, True):
        world.cluster.leading = leading
        world.reconciler.lead() if leading else world.reconciler.stand_back()
    await world.board.write(WEB)

    assert before == ("Ready", 1)
    assert trying == ready(world) == ("Suspending", 9)


async def test_an_end_of_before_is_not_taken_for_this_one(world: EndingWorld) -> None:
    """Suspended, resumed by a visit that was given up, and suspended again."""
    world.change(suspended=True)
    await world.settle()
    world.change()
    world.board.resumed(WEB)
    world.change(suspended=True)
    await world.board.write(WEB)

    assert ready(world) == ("Suspended", 2)


async def test_a_follower_says_nothing_of_ends(world: EndingWorld) -> None:
    """It has ended nothing."""
    world.cluster.leading = False
    world.reconciler.stand_back()
    world.change(suspended=True)
    await visit(world)
    world.cluster.leading = True
    await world.board.write(WEB)

    assert ready(world) == ("Ready", 1)


async def test_an_anchor_is_named_only_for_the_grant_that_was_looked_at(world: EndingWorld) -> None:
    """A status that is written between a change and the look lets no follower issue for what is new."""
    stricter = replace(web().grants[1], expect=Expect(deny=("get secrets",)))
    world.change(grants=(web().grants[0], stricter))
    await world.board.write(WEB)
    status = world.cluster.resources[WEB].status
    named = [listed_anchor(status, 2, one) for one in (web().grants[0], stricter)]

    assert [it is not None and bool(it.uid) for it in named] == [True, False]


async def test_a_broker_that_starts_where_no_status_can_be_written_looks_at_what_is_listed(world: EndingWorld) -> None:
    """A new grant cannot be listed; the account of the old one may do what is denied."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.restart()
    world.cluster.unwritable = True
    world.cluster.denied.add("reporter")
    world.register(web(grants=(*web().grants, grant(name="new", vault=None, service_account="new")), generation=2))
    world.reconciler.changed(WEB)
    await visit(world)

    assert not world.accepts(token)


async def test_a_hurry_ends_what_went_though_nobody_knows_what_is_allowed(world: EndingWorld) -> None:
    """Where labels are too old to tell; and what is forbidden is barred though something else cannot be ended."""
    token = (await world.issue())[1]
    world.change(grants=web().grants[1:])
    world.labels_known = False
    with pytest.raises(BrokerError, match="registry_stale"):
        await world.reconciler.hurry(WEB)
    assert not world.accepts(token)

    world.labels_known, world.limits = True, NamespaceLimits(max_ttl_seconds=1)
    world.cluster.delete_fault = AWAY
    with pytest.raises(BrokerError, match="away"):
        await world.reconciler.hurry(WEB)
    with pytest.raises(BrokerError, match="limits_exceeded"):
        await world.issue(grant_name=TOGETHER)


async def test_labels_that_forbid_nothing_give_up_no_visit(world: EndingWorld) -> None:
    """Else whoever may label the namespace keeps its clients from ever being looked at."""
    hurried, planned = list[ClientId](), list[ClientId]()
    world.reconciler.queue.hurry = hurried.append  # type: ignore[assignment, method-assign]
    world.reconciler.queue.add = planned.append  # type: ignore[assignment, method-assign]
    world.reconciler.namespace_changed(WEB.namespace)
    allowed = list(hurried), list(planned)
    world.limits = NamespaceLimits(max_ttl_seconds=1)
    world.reconciler.namespace_changed(WEB.namespace)
    world.labels_known = False
    world.reconciler.namespace_changed(WEB.namespace)

    assert allowed == ([], [WEB])
    assert (hurried, planned) == ([WEB], [WEB, WEB])


async def test_a_copy_outlives_a_change_that_ends_nothing_while_it_is_looked_at(world: EndingWorld) -> None:
    """A specification that cannot be read, in the middle of a visit: what is in Vault goes on to work."""
    find, ensure, token = world.cluster.find, world.cluster.ensure, world.in_vault()
    assert token is not None

    async def found(client: Client, which: AnchorId) -> Anchor | None:
        invalid(world, suspended=False)
        return await find(client, which)

    async def made(client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        invalid(world, suspended=False)
        return await ensure(client, which, parent)

    world.cluster.find, world.cluster.ensure = found, made  # type: ignore[method-assign]
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.rotator.visit(KEY)

    assert world.accepts(token)


async def test_an_anchor_that_is_made_while_its_client_is_suspended_is_taken_away(world: EndingWorld) -> None:
    """Or it would be there when tokens have ended, with nobody to look for it."""
    ensure, made = world.cluster.ensure, list[str]()
    name = vault_anchor("uid-1", web().grants[0]).name
    await world.cluster.delete("shop", name)

    async def meanwhile(client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        found = await ensure(client, which, parent)
        made.append(which.name)
        world.change(suspended=True)
        return found

    world.cluster.ensure = meanwhile  # type: ignore[method-assign]
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.rotator.visit(KEY)

    assert made == [name]
    assert name not in world.cluster.anchors


async def test_no_anchor_is_made_before_its_grant_is_listed_though_the_lead_comes_meanwhile(world: EndingWorld) -> None:
    """Or who starts after a crash would not know of it, and an orphaning deletion would leave it behind."""
    world.register(other())
    world.cluster.leading = False
    find = world.cluster.find

    async def lead(client: Client, which: AnchorId) -> Anchor | None:
        world.cluster.leading = True
        return await find(client, which)

    world.cluster.find = lead  # type: ignore[method-assign]
    before = set(world.cluster.anchors)
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.reconciler.visit(OTHER)
    assert set(world.cluster.anchors) == before

    world.cluster.find = find  # type: ignore[method-assign]
    await world.reconciler.visit(OTHER)
    assert world.cluster.resources[OTHER].finalizers == (FINALIZER,)


@pytest.mark.parametrize("leading", [True, False])
async def test_renamed_grants_are_forgotten(world: EndingWorld, *, leading: bool) -> None:
    """By the leader, and by who follows it."""
    for number in range(20):
        one = grant(name=f"grant-{number}", vault=None)
        world.register(web(grants=(one,), generation=2 + number))
        if not leading:
            subject = f"system:serviceaccount:{WEB.namespace}:{one.service_account}"
            entry = {"name": one.name, "subject": subject, "anchorUID": f"a-{number}", "accountUID": "account-1"}
            world.cluster.resources[WEB].status = {"observedGeneration": 2 + number, "grants": [entry]}
        world.cluster.leading = leading
        world.reconciler.changed(WEB)
        await visit(world)

    assert len(world.book._clients[WEB].prepared) == 1
    assert len(world.anchored._known[WEB]) == 1
    assert grant_anchor("uid-1", web().grant(SINGLY) or grant()).name not in world.cluster.anchors or not leading
