"""What has to end is owed until it has ended, whatever is edited, lost, taken back or given up meanwhile."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import grant_anchor, trial_anchor, vault_anchor
from broker.model.client import Client, ClientId, Expect, Grant
from broker.model.limits import NamespaceLimits
from broker.model.status import AccessFacts
from broker.model.token import MintedToken
from broker.ports import Registration
from tests.support.endings import AWAY, FORBIDDEN, OTHER, SINGLY, TOGETHER, WEB, EndingWorld, handed_out, other, web
from tests.support.processes import until
from tests.support.rotation import grant


@pytest.fixture
async def world() -> EndingWorld:
    """Return a world with one client that is served, and whose registration was seen."""
    world = EndingWorld()
    world.register(web())
    world.reconciler.changed(WEB)
    await world.settle()
    return world


async def _true(value: bool) -> bool:  # noqa: FBT001 - one thing
    return value


async def refused(work: Awaitable[object]) -> Reason:
    """Return why something fails."""
    with pytest.raises(BrokerError) as error:
        await work
    return error.value.reason


THERE_AND_BACK: dict[str, dict[str, object]] = {
    "suspended": {"suspended": True},
    "a grant taken out": {"grants": web().grants[:1]},
    "another account": {"grants": (web().grants[0], replace(web().grants[1], service_account="other"))},
}


@pytest.mark.parametrize("change", THERE_AND_BACK.values(), ids=THERE_AND_BACK.keys())
async def test_a_change_that_is_taken_back_before_a_visit_ends_tokens_all_the_same(
    world: EndingWorld, change: dict[str, object]
) -> None:
    """What it ended stays ended; what is issued afterwards is good."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.change(**change)
    world.change()
    await world.settle()

    assert not world.accepts(token)
    assert world.accepts((await world.issue(grant_name=TOGETHER))[1])
    assert world.orphans() == 0


async def test_a_grant_that_cannot_be_ended_hides_no_finding_about_others(world: EndingWorld) -> None:
    """One grant is gone and its anchor stays; the account of the other may do what is denied: nothing is issued."""
    token = world.in_vault()
    assert token is not None
    world.cluster.refused = {handed_out(TOGETHER): FORBIDDEN}
    world.change(grants=web().grants[:1])
    await world.settle()
    served = await world.issue()
    world.cluster.denied.add("reporter")
    await world.settle()

    assert await refused(world.issue()) is Reason.ACCESS_NOT_AS_DECLARED
    assert not world.accepts(served[1])
    assert not world.accepts(token)
    assert world.orphans() == 1


async def test_a_status_that_cannot_be_written_hides_no_finding(world: EndingWorld) -> None:
    """Grants that are listed are looked at; a new one, which is not, gets no anchor."""
    new = grant(name="new", vault=None, service_account="new")
    world.change(grants=(*web().grants, new))
    world.cluster.unwritable = True
    world.cluster.denied.add("reporter")
    reason = await refused(world.reconciler.visit(WEB))

    assert reason is Reason.ACCESS_NOT_AS_DECLARED
    assert not world.tops()


async def test_what_is_shown_follows_the_specification_while_an_end_fails(world: EndingWorld) -> None:
    """Not the generation before; the new grant is served."""
    world.cluster.refused = {handed_out(TOGETHER): AWAY}
    world.change(grants=(web().grants[0], grant(name="new", vault=None)))
    await world.settle()

    assert world.cluster.resources[WEB].status["observedGeneration"] == 2
    assert world.accepts((await world.issue(grant_name="new"))[1])


async def test_an_end_that_failed_is_tried_again_though_nothing_can_be_found_out_any_more(world: EndingWorld) -> None:
    """The account was found to do what is denied; then the broker may not even mint a trial."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.denied.add("reporter")
    world.cluster.delete_fault = AWAY
    await world.settle()
    assert world.orphans() == 2
    world.cluster.delete_fault = None

    async def forbidden(*_args: object) -> MintedToken:
        raise FORBIDDEN

    world.cluster.rehearse = forbidden  # type: ignore[assignment, method-assign]
    assert await refused(world.reconciler.visit(WEB)) is Reason.BROKER_NOT_AUTHORIZED

    assert not world.accepts(token)
    assert world.orphans() == 0


async def test_an_anchor_that_is_made_late_goes_at_the_next_look_at_what_was_found(world: EndingWorld) -> None:
    """A former leader's call may arrive when the tokens of a grant have been ended already."""
    world.cluster.denied.add("reporter")
    await world.settle()
    for which in (grant_anchor, vault_anchor):
        await world.cluster.ensure(web(), which("uid-1", web().grants[0]))
    await world.settle()

    assert not world.tops()


async def test_limits_that_are_taken_back_end_tokens_however_slow_accounts_are_to_look_at(world: EndingWorld) -> None:
    """The operator's word waits for no worker, and needs no look."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    check, never = world.cluster.check, asyncio.Event()

    async def slow(client: Client, of: Grant, token: MintedToken) -> AccessFacts:
        if client.id != WEB:
            await never.wait()
        return await check(client, of, token)

    world.cluster.check = slow  # type: ignore[assignment, method-assign]
    task = asyncio.create_task(world.reconciler.queue.run())
    for number in range(8):
        other = web(id=ClientId(WEB.namespace, f"slow-{number}"), uid=f"slow-{number}")
        world.register(other)
        world.reconciler.changed(other.id)
    await asyncio.sleep(0.05)
    world.limits = NamespaceLimits(max_ttl_seconds=1)
    world.reconciler.namespace_changed(WEB.namespace)
    await until(lambda: _true(not world.accepts(token)), what="the token has ended", seconds=5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert world.accepts(token) is False


async def test_a_look_that_stands_back_for_callers_is_given_up_for_a_suspension(world: EndingWorld) -> None:
    """And others have its turn, however many callers there are."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    standing, never = asyncio.Event(), asyncio.Event()

    async def quiet(_seconds: float) -> None:
        standing.set()
        await never.wait()

    world.cluster.quiet = quiet  # type: ignore[assignment, method-assign]
    world.register(other())
    await world.reconciler.visit(OTHER)
    task = asyncio.create_task(world.reconciler.queue.run())
    world.reconciler.queue.add(WEB)
    async with asyncio.timeout(5):
        await standing.wait()
    standing.clear()
    world.reconciler.queue.add(OTHER)
    world.change(suspended=True)
    await until(lambda: _true(not world.accepts(token)), what="the token has ended", seconds=5)
    async with asyncio.timeout(5):
        await standing.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert world.accepts(token) is False


async def test_a_fresh_suspension_does_not_wait_for_those_that_are_long_over(world: EndingWorld) -> None:
    """Who begins to lead visits all that were suspended a year ago; the one of this moment goes first."""
    for number in range(100):
        world.register(web(id=ClientId(WEB.namespace, f"old-{number}"), uid=f"old-{number}", suspended=True))
    for client_id in world.cluster.resources:
        world.reconciler.changed(client_id)
        world.reconciler.queue.forget(client_id)
    deleted: list[str] = []
    delete = world.cluster.delete

    async def noted(namespace: str, name: str, uid: str | None = None) -> bool:
        deleted.append(name)
        await asyncio.sleep(0)
        return await delete(namespace, name, uid)

    world.cluster.delete = noted  # type: ignore[method-assign]
    world.reconciler.lead()
    world.change(suspended=True)
    task = asyncio.create_task(world.reconciler.queue.run())
    await until(lambda: _true(handed_out(TOGETHER) in deleted), what="the token has ended", seconds=5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert deleted.index(handed_out(SINGLY)) < 8  # as many as workers for what is in a hurry


async def test_what_ended_is_written_down_though_the_visit_was_given_up(world: EndingWorld) -> None:
    """Between two deletions: done again, the first finds nothing any more."""
    delete, calls = world.cluster.delete, 0

    async def cut(namespace: str, name: str, uid: str | None = None) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise asyncio.CancelledError
        return await delete(namespace, name, uid)

    world.cluster.delete = cut  # type: ignore[method-assign]
    only = web().grants[1:]
    with pytest.raises(asyncio.CancelledError):
        await world.ender.end(WEB, "uid-1", only, "client_suspended")
    assert await world.ender.end(WEB, "uid-1", only, "client_suspended") == []

    assert [record.grant for record in world.audit.ended] == [TOGETHER]


async def test_who_lost_the_lead_in_the_middle_counts_nothing(world: EndingWorld) -> None:
    """The next leader does; the gauges of two must not add up."""
    delete = world.cluster.delete

    async def lose(namespace: str, name: str, uid: str | None = None) -> bool:
        world.cluster.leading = False
        world.reconciler.stand_back()
        return await delete(namespace, name, uid)

    world.cluster.delete, world.cluster.delete_fault = lose, AWAY  # type: ignore[method-assign]
    world.change(suspended=True)
    await refused(world.reconciler.visit(WEB))

    assert world.orphans() == 0


async def test_a_client_that_comes_again_while_its_forerunner_ends_is_not_forgotten(world: EndingWorld) -> None:
    """What the operator allows in its namespace reaches it."""
    del world.cluster.resources[WEB]
    delete = world.cluster.delete

    async def meanwhile(namespace: str, name: str, uid: str | None = None) -> bool:
        world.register(web(uid="uid-2"))
        world.reconciler.changed(WEB)
        return await delete(namespace, name, uid)

    world.cluster.delete = meanwhile  # type: ignore[method-assign]
    await world.reconciler.visit(WEB)
    told: list[ClientId] = []
    world.reconciler.queue.add = told.append  # type: ignore[assignment, method-assign]
    world.reconciler.namespace_changed(WEB.namespace)

    assert told == [WEB]


async def test_a_client_that_went_with_its_namespace_is_forgotten(world: EndingWorld) -> None:
    """There nobody has rights any more; it must not be tried, nor counted, for ever."""
    del world.cluster.resources[WEB]
    world.cluster.delete_fault = FORBIDDEN
    await world.reconciler.visit(WEB)

    assert world.orphans() == 0
    assert not world.anchored.left(WEB)


async def test_the_end_of_a_registration_is_planned_though_something_else_cannot_be_ended(world: EndingWorld) -> None:
    """In a hurry as well: what fails is tried again with backoff, and the end comes to its time."""
    planned: list[tuple[float, bool]] = []

    def add(_key: ClientId, delay: float = 0.0, *, urgent: bool = False) -> None:
        planned.append((delay, urgent))

    world.reconciler.queue.add = add  # type: ignore[assignment, method-assign]
    world.cluster.delete_fault = AWAY
    world.register(web(grants=web().grants[:1], generation=2, not_after=world.clock.now() + timedelta(seconds=9)))
    await refused(world.reconciler.hurry(WEB))

    assert (10, True) in planned


async def test_a_grant_that_was_taken_out_and_put_back_is_ready_at_the_first_look(world: EndingWorld) -> None:
    """The anchor that it was tried out with went with it; the broker notices, and makes another one."""
    world.change(grants=web().grants[:1])
    world.change()
    await world.reconciler.visit(WEB)

    assert world.accepts((await world.issue(grant_name=TOGETHER))[1])


async def test_grants_that_are_renamed_all_the_time_leave_nothing_behind(world: EndingWorld) -> None:
    """A namespace's owner could else fill the memory."""

    def remembered() -> int:
        preparer, tokens, board = world.reconciler._preparer, world.tokens, world.board
        kept = (preparer._trials, tokens._open, tokens._swept, board._grants)
        return sum(len(of.get(WEB, {})) for of in kept) + len(world.anchored._known.get(WEB, ()))

    before = remembered()
    for number in range(20):
        world.change(grants=(grant(name=f"grant-{number}", revocation=web().grants[0].revocation),))
        await world.settle()

    assert remembered() <= before


async def test_an_invalid_client_that_is_suspended_is_visited_at_once_and_shown_when_it_is_done(
    world: EndingWorld,
) -> None:
    """Who pulls the switch need not mend the rest first, and is not told too soon."""
    hurried: list[ClientId] = []
    world.reconciler.queue.hurry = hurried.append  # type: ignore[assignment, method-assign]
    known = world.cluster.get(WEB)
    assert known is not None
    broken = replace(known, client=None, fault=Fault(Reason.INVALID_REQUEST, "spec: no"), suspended=True, generation=2)

    def get(client_id: ClientId) -> Registration | None:
        version = str(world.cluster.resources[WEB].version)
        return replace(broken, resource_version=version) if client_id == WEB else None

    world.cluster.get = get  # type: ignore[method-assign]
    world.reconciler.changed(WEB)
    world.cluster.delete_fault = AWAY
    said = []
    for fault in (AWAY, None):
        world.cluster.delete_fault = fault
        with suppress(BrokerError):
            await world.reconciler.hurry(WEB)
        await world.board.write(WEB)
        said.append(world.cluster.resources[WEB].status["conditions"][0]["reason"])

    assert hurried == [WEB]
    assert said == ["Suspending", "InvalidSpec"]
    assert not world.tops()


async def test_who_begins_to_lead_takes_back_nothing_that_the_one_before_has_said(world: EndingWorld) -> None:
    """Neither what this one knew when it led the last time, nor that nothing was tried out yet."""
    said = world.cluster.resources[WEB].status
    world.cluster.leading = False
    world.reconciler.stand_back()
    world.cluster.leading = True
    world.reconciler.lead()
    await world.board.write(WEB)

    assert world.cluster.resources[WEB].status is said
    assert len(world.reconciler.queue) == 1


@pytest.mark.parametrize("change", [{"owner": "somebody else"}, {"suspended": True}])
async def test_a_status_is_brought_up_to_date_where_no_fact_has_changed(
    world: EndingWorld, change: dict[str, object]
) -> None:
    """The generation has: who waits for it would wait for a minute."""
    world.board.queue.forget(WEB)
    world.change(**change)
    await world.reconciler.visit(WEB)

    assert len(world.board.queue) == 1


async def test_a_barred_grant_that_nobody_could_end_is_an_orphan_though_no_anchor_of_it_is_known() -> None:
    """A broker that was just started does not know what the one before has made: only a lack of rights excuses it."""
    world = EndingWorld()
    world.register(web())
    world.cluster.denied.add("reporter")
    world.cluster.delete_fault = AWAY
    await refused(world.reconciler.visit(WEB))

    assert world.orphans() == 2


async def test_an_account_that_is_changed_is_tried_out_with_an_anchor_of_its_own(world: EndingWorld) -> None:
    """The anchor's name tells whose trial it was."""
    moved = replace(web().grants[1], service_account="other")
    world.change(grants=(web().grants[0], moved))
    await world.settle()

    assert trial_anchor("uid-1", moved).name in world.cluster.anchors


async def test_a_follower_goes_by_each_word_of_the_leader(world: EndingWorld) -> None:
    """The account that was looked at among them; and forgets what the leader says no more."""
    world.cluster.leading = False
    status = dict(world.cluster.resources[WEB].status)
    entries = [{**entry, "accountUID": "account-2"} for entry in status["grants"]]
    world.cluster.resources[WEB].status = {**status, "grants": entries}
    planned: list[ClientId] = []
    world.reconciler.queue.news = planned.append  # type: ignore[assignment, method-assign]
    world.reconciler.changed(WEB)
    await world.reconciler.visit(WEB)
    followed = world.book.get(web(), web().grants[1])
    world.cluster.resources[WEB].status = {
        **status,
        "grants": [{"name": entry["name"], "subject": entry["subject"]} for entry in entries],
    }
    world.reconciler.changed(WEB)
    await refused(world.reconciler.visit(WEB))

    assert planned == [WEB, WEB]
    assert followed is not None
    assert followed.account_uid == "account-2"
    assert world.book.get(web(), web().grants[1]) is None


async def test_a_follower_waits_for_the_leader_to_have_seen_a_change(world: EndingWorld) -> None:
    """A grant that changed is not issued for by what was said of it before; one that did not is."""
    world.cluster.leading = False
    stricter = replace(web().grants[1], expect=Expect(deny=("get secrets",)))
    world.change(grants=(web().grants[0], stricter))
    await refused(world.reconciler.visit(WEB))
    before = await refused(world.issue(grant_name=TOGETHER))
    served = await world.issue(grant_name=SINGLY)
    world.cluster.resources[WEB].status = {**world.cluster.resources[WEB].status, "observedGeneration": 2}
    world.reconciler.changed(WEB)
    await world.reconciler.visit(WEB)

    assert before is Reason.ANCHOR_MISSING
    assert world.accepts(served[1])
    assert world.accepts((await world.issue(grant_name=TOGETHER))[1])


async def test_what_has_ended_once_is_owed_again_when_it_lives_again(world: EndingWorld) -> None:
    """A grant that went, came back and goes again is listed until its new anchors have ended."""
    without = web().grants[:1]
    for grants in (without, web().grants):
        world.change(grants=grants)
        await world.settle()
    world.cluster.delete_fault = AWAY
    world.change(grants=without)
    await world.settle()
    listed = {entry["name"] for entry in world.cluster.resources[WEB].status["grants"]}

    assert listed == {SINGLY, TOGETHER}
    assert world.anchored.known(WEB, "uid-1", web().grants[1])


async def test_who_went_is_not_told_of_its_namespace_any_more(world: EndingWorld) -> None:
    """Others of the namespace are."""
    other = web(id=ClientId(WEB.namespace, "other"), uid="uid-of-other")
    world.register(other)
    world.reconciler.changed(other.id)
    del world.cluster.resources[WEB]
    await world.reconciler.visit(WEB)
    told: list[ClientId] = []
    world.reconciler.queue.add = told.append  # type: ignore[assignment, method-assign]
    world.reconciler.namespace_changed(WEB.namespace)

    assert told == [other.id]
