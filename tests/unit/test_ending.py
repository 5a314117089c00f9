"""Ending tokens: what is tried, what is counted, and who is not overtaken."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import AnchorId, AnchorKind, grant_anchor, vault_anchor
from broker.model.audit_record import Origin
from broker.model.client import Client, ClientId, Revocation
from broker.model.former_grants import former_grant
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.services import token_anchors
from broker.services.ending import NotEnded
from broker.services.reconcile import RECHECK_SECONDS
from broker.services.token_anchors import BUCKET_SECONDS, BUCKETS_IN_USE
from tests.support.endings import AWAY, FORBIDDEN, SINGLY, TOGETHER, WEB, EndingWorld, handed_out, other, web
from tests.support.rotation import KEY, HandClock, grant


@pytest.fixture
async def world() -> EndingWorld:
    """Return a world with one client that is served."""
    world = EndingWorld()
    world.register(web())
    await world.settle()
    return world


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many tokens a grant has room for: fewer than in earnest, which would take long."""
    monkeypatch.setattr(token_anchors, "MAX_TOKENS", 10)
    return token_anchors.MAX_TOKENS


def plans(world: EndingWorld) -> list[float]:
    """Return a list that takes up in how many seconds visits are planned from now on, which never come."""
    planned: list[float] = []

    def add(key: ClientId, delay: float = 0.0, *, urgent: bool = False) -> None:
        del key, urgent
        planned.append(delay)

    world.reconciler.queue.add = add  # type: ignore[method-assign]
    world.reconciler.queue.news = add  # type: ignore[method-assign]
    return planned


async def test_what_cannot_be_ended_is_counted_until_it_is(world: EndingWorld) -> None:
    """Without its Role the broker ends nothing, says of how many grants, and goes on when it has the Role again."""
    world.cluster.delete_fault = FORBIDDEN
    world.register(web(suspended=True, generation=2))
    await world.settle()
    assert world.orphans() == 2

    world.cluster.delete_fault = None
    await world.settle()
    assert world.orphans() == 0
    assert not world.tops()


async def test_a_client_that_is_resumed_pays_what_is_owed_first(world: EndingWorld) -> None:
    """Tokens that could not be ended do not live again: nothing is issued beside them, and they end before it is."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.delete_fault = FORBIDDEN
    world.register(web(suspended=True, generation=2))
    await world.settle()
    world.register(web(generation=3))
    await world.settle()
    owed = world.orphans()
    with pytest.raises(BrokerError, match="broker_not_authorized"):
        await world.issue(grant_name=TOGETHER)
    world.cluster.delete_fault = None
    await world.settle()

    assert (owed, world.orphans()) == (2, 0)
    assert not world.accepts(token)
    assert world.accepts((await world.issue(grant_name=TOGETHER))[1])


async def test_who_leads_no_more_counts_nothing(world: EndingWorld) -> None:
    """The next leader counts what it cannot end; the gauges of two must not add up."""
    world.cluster.delete_fault = AWAY
    world.register(web(suspended=True, generation=2))
    await world.settle()
    world.reconciler.stand_back()

    assert world.orphans() == 0


async def test_a_grant_that_cannot_be_ended_holds_up_no_other(world: EndingWorld) -> None:
    """Nor does one of its anchors hold up its other two; what failed is told."""
    first, second = web().grants
    world.cluster.refused = {grant_anchor("uid-1", first).name: AWAY}
    left = await world.ender.end(WEB, "uid-1", [first, second], "client_suspended")

    assert left == [NotEnded("uid-1", former_grant(first), Fault.of(AWAY))]
    assert world.orphans() == 1
    assert world.tops() == {grant_anchor("uid-1", first).name}


async def test_a_grant_that_goes_a_second_time_is_remembered_until_it_has_ended(world: EndingWorld) -> None:
    """That it had ended once says nothing about its new anchors."""
    only = (grant(name=TOGETHER, vault=None),)
    world.register(web(grants=only, generation=2))
    await world.settle()
    world.register(web(generation=3))
    await world.settle()
    world.register(web(grants=only, generation=4))
    world.cluster.delete_fault = AWAY
    await world.settle()
    world.restart()
    world.cluster.delete_fault = None
    await world.settle()

    assert world.tops() == world.wanted()


async def test_a_copy_that_is_overtaken_by_a_suspension_makes_no_anchor(world: EndingWorld) -> None:
    """The anchor above versions is made while the client is suspended and its anchors are deleted: it goes again."""
    ensure = world.cluster.ensure
    world.cluster.anchors.clear()

    async def overtaken(client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        if which == vault_anchor(client.uid, client.grants[0]):
            world.register(web(suspended=True, generation=2))
            await world.reconciler.visit(WEB)
        return await ensure(client, which, parent)

    world.cluster.ensure = overtaken  # type: ignore[method-assign]
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.rotator.deliver(web(), SINGLY, Origin("r"))

    assert not world.cluster.anchors


async def test_a_copy_that_is_overtaken_by_a_finding_makes_no_anchor(world: EndingWorld) -> None:
    """The same, where the account was found to be able to do what its owner denies."""
    del world.cluster.anchors[vault_anchor("uid-1", web().grants[0]).name]
    ensure = world.cluster.ensure

    async def overtaken(client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        if which == vault_anchor(client.uid, client.grants[0]):
            world.cluster.denied.add("reporter")
            with pytest.raises(BrokerError):
                await world.reconciler.visit(WEB)
        return await ensure(client, which, parent)

    world.cluster.ensure = overtaken  # type: ignore[method-assign]
    with pytest.raises(BrokerError, match="access_not_as_declared"):
        await world.rotator.deliver(web(), SINGLY, Origin("r"))

    assert vault_anchor("uid-1", web().grants[0]).name not in world.cluster.anchors


async def test_the_end_of_a_registration_is_not_missed_where_a_grant_fails(world: EndingWorld) -> None:
    """A visit that fails is tried again with backoff, which may be a minute: the end comes to its time."""
    world.register(web(not_after=world.clock.now() + timedelta(seconds=7), generation=2))
    world.cluster.denied.add("reporter")
    planned = plans(world)
    with pytest.raises(BrokerError):
        await world.reconciler.visit(WEB)

    assert planned == [8]


async def test_a_client_that_works_is_looked_at_again_within_twice_the_period(world: EndingWorld) -> None:
    """Deletions that were lost, and accounts that changed, are found then."""
    wait = await world.reconciler.visit(WEB)

    assert wait is not None
    assert RECHECK_SECONDS <= wait <= 2 * RECHECK_SECONDS


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"suspended": True, "generation": 2}, True),
        ({"grants": web().grants[1:], "generation": 2}, True),
        ({"grants": (web().grants[0], replace(web().grants[1], service_account="new")), "generation": 2}, True),
        ({"not_after": HandClock().now(), "generation": 2}, True),
        ({"owner": "somebody else", "generation": 2}, False),
        ({"rotate_requested": HandClock().now()}, False),
    ],
)
async def test_who_has_to_end_is_visited_first(world: EndingWorld, change: dict[str, object], *, first: bool) -> None:
    """After a start ten thousand clients wait to be prepared; a suspension waits for none of them."""
    world.reconciler.changed(WEB)
    world.reconciler.queue.forget(WEB)
    hurried, planned = list[ClientId](), plans(world)
    world.reconciler.queue.hurry = hurried.append  # type: ignore[assignment, method-assign]
    world.register(web(**change))
    world.reconciler.changed(WEB)
    world.reconciler.changed(WEB)

    assert (hurried, planned) == (([WEB], []) if first else ([], [0.0]))


async def test_a_client_of_a_directory_that_went_has_its_tokens_ended(world: EndingWorld) -> None:
    """No resource was deleted with it, so the broker deletes its anchors itself."""
    known = world.cluster.get(WEB)
    assert known is not None
    from_file = replace(known, resource_version="")
    get = world.cluster.get
    world.cluster.get = lambda client_id: from_file if client_id == WEB else get(client_id)  # type: ignore[method-assign]
    await world.reconciler.visit(WEB)
    del world.cluster.resources[WEB]
    world.cluster.get = get  # type: ignore[method-assign]
    world.cluster.delete_fault = AWAY
    with pytest.raises(BrokerError):
        await world.reconciler.visit(WEB)
    world.cluster.delete_fault = None
    await world.reconciler.visit(WEB)

    assert not world.cluster.anchors


async def test_a_follower_makes_no_anchor(world: EndingWorld) -> None:
    """It hands out tokens of the leader's anchor while that is there, and answers 503 where it is not."""
    world.restart()
    world.cluster.leading = False
    await world.settle()
    assert world.accepts((await world.issue(grant_name=TOGETHER))[1])

    world.cluster.anchors.clear()
    await world.settle()
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.issue(grant_name=TOGETHER)
    assert not world.cluster.anchors


async def test_a_token_that_could_not_be_written_down_is_ended(world: EndingWorld) -> None:
    """Nobody has it; it must not be good for anything either."""
    world.audit.fault = BrokerError(Reason.AUDIT_UNAVAILABLE, "disk full")
    with pytest.raises(BrokerError, match="audit_unavailable"):
        await world.issue()
    (token,) = [value for value, (uid, _) in world.cluster.tokens.items() if "-t" in world.anchor_name(uid)]
    assert world.accepts(token)
    await world.until_abandoned()

    assert not world.accepts(token)


async def test_buckets_go_when_all_their_tokens_have_ended(world: EndingWorld) -> None:
    """Not before: the last token of a bucket may live as long as tokens may at all. And each is deleted once."""
    await world.issue()
    buckets = world.buckets()
    assert len(buckets) == 1
    world.clock.pass_(BUCKET_SECONDS * BUCKETS_IN_USE)
    await world.reconciler.visit(WEB)
    assert world.buckets() == buckets

    world.clock.pass_(2 * BUCKET_SECONDS)
    await world.reconciler.visit(WEB)
    assert not world.buckets()
    world.power.calls.clear()
    await world.reconciler.visit(WEB)
    assert "delete" not in world.power.calls


async def test_a_grant_has_room_for_so_many_tokens(world: EndingWorld, room: int) -> None:
    """One more is refused, and told when there is room again; the next bucket has room."""
    for _ in range(room):
        await world.issue()
    with pytest.raises(BrokerError, match="too_many_tokens") as refused:
        await world.issue()
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= BUCKET_SECONDS

    world.clock.pass_(refused.value.retry_after)
    await world.issue()


async def test_a_new_version_is_asked_for_a_moment_ahead(world: EndingWorld) -> None:
    """Times of annotations are whole seconds, rounded up: the copy is visited when that second is there."""
    asked = world.clock.now() + timedelta(seconds=0.4)
    world.register(web(rotate_requested=asked))
    wait = await world.rotator.visit(KEY)
    assert wait == pytest.approx(0.4)
    before = world.in_vault()
    world.clock.pass_(0.4)
    await world.rotator.visit(KEY)

    assert world.in_vault() != before


async def test_an_account_that_was_made_again_is_looked_at_again(world: EndingWorld) -> None:
    """Its tokens are refused by its UID: the next request finds that out, and the one after it is served."""
    world.cluster.account_uid = "account-2"
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.issue(grant_name=TOGETHER)
    await world.reconciler.visit(WEB)

    assert world.accepts((await world.issue(grant_name=TOGETHER))[1])


async def test_a_copy_of_an_account_that_was_made_again_is_replaced(world: EndingWorld) -> None:
    """The periodic look finds it where nobody asks for tokens, and has the copy visited."""
    before, told = world.in_vault(), world.rotator.queue
    world.cluster.account_uid = "account-2"
    world.rotator.changed(WEB)
    told.forget(KEY)
    await world.reconciler.visit(WEB)
    assert len(told) == 1
    await world.rotator.visit(KEY)
    assert (after := world.in_vault()) != before

    told.forget(KEY)
    await world.reconciler.visit(WEB)
    assert len(told) == 0
    await world.rotator.visit(KEY)
    assert world.in_vault() == after


async def test_a_suspension_ends_tokens_of_a_client_that_is_not_valid(world: EndingWorld) -> None:
    """Who pulls the switch need not mend the rest first; without it, an invalid client only gets nothing new."""
    get = world.cluster.get
    known = get(WEB)
    assert known is not None
    broken = replace(known, client=None, fault=Fault(Reason.INVALID_REQUEST, "spec: no"))
    world.cluster.get = lambda client_id: broken if client_id == WEB else None  # type: ignore[method-assign]
    await world.reconciler.visit(WEB)
    assert len(world.tops()) == 5

    switched = replace(broken, suspended=True)
    world.cluster.get = lambda client_id: switched if client_id == WEB else None  # type: ignore[method-assign]
    await world.reconciler.visit(WEB)
    assert not world.tops()


async def test_a_former_grant_that_cannot_be_ended_holds_up_no_suspension(world: EndingWorld) -> None:
    """Both are tried, and both tried again."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.refused = {handed_out(SINGLY): FORBIDDEN}
    world.register(web(grants=web().grants[1:], suspended=True, generation=2))
    with pytest.raises(BrokerError, match="broker_not_authorized"):
        await world.reconciler.visit(WEB)

    assert not world.accepts(token)
    assert world.orphans() == 1


async def test_what_is_in_vault_ends_also_where_what_was_handed_out_cannot(world: EndingWorld) -> None:
    """Each anchor of a grant is tried."""
    token = world.in_vault()
    assert token is not None
    world.cluster.refused = {handed_out(SINGLY): FORBIDDEN}
    world.register(web(suspended=True, generation=2))
    await world.settle()

    assert not world.accepts(token)


async def test_a_lack_of_rights_hides_no_other_failure_from_a_deletion(world: EndingWorld) -> None:
    """The TokenClient waits for the end of what may end yet; else its tokens would have nobody who ends them."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.refused = {handed_out(SINGLY): FORBIDDEN, handed_out(TOGETHER): AWAY}
    world.cluster.delete_client(WEB, orphan=True)
    await world.settle()
    assert WEB in world.cluster.resources
    world.cluster.refused = {}
    await world.settle()

    assert not world.accepts(token)
    assert WEB not in world.cluster.resources


async def test_a_deletion_without_rights_is_left_to_the_garbage_collector(world: EndingWorld) -> None:
    """A namespace that is deleted takes the broker's Role away before the TokenClient, which must not wait for ever."""
    world.cluster.delete_fault = FORBIDDEN
    world.cluster.delete_client(WEB)
    await world.settle()

    assert WEB not in world.cluster.resources
    assert world.orphans() == 0


async def test_a_client_whose_finalizer_was_taken_off_has_its_tokens_ended(world: EndingWorld) -> None:
    """Deleted with --cascade=orphan before the broker has put it on again: the broker knows what it has made."""
    world.reconciler.changed(WEB)
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.resources[WEB].finalizers = ()
    world.cluster.delete_client(WEB, orphan=True)
    assert WEB not in world.cluster.resources
    assert world.accepts(token)
    await world.settle()

    assert not world.accepts(token)


async def test_a_finalizer_that_was_taken_off_is_put_on_again_at_once(world: EndingWorld) -> None:
    """One that came, the broker's own among them, is no news."""
    world.reconciler.changed(WEB)
    planned = plans(world)
    world.cluster.resources[WEB].finalizers += ("somebody/else",)
    world.reconciler.changed(WEB)
    came = planned.copy()
    world.cluster.resources[WEB].finalizers = ("somebody/else",)
    world.reconciler.changed(WEB)

    assert (came, planned) == ([], [0.0])


async def test_a_namesake_does_not_save_the_tokens_of_one_that_went(world: EndingWorld) -> None:
    """The finalizer taken off, orphaned, and made again before the broker looked: the other one's anchors go."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.resources[WEB].finalizers = ()
    world.cluster.delete_client(WEB, orphan=True)
    world.register(web(uid="uid-2"))
    await world.settle()

    assert not world.accepts(token)
    assert world.accepts((await world.issue(grant_name=TOGETHER))[1])


async def test_a_grant_whose_status_was_wiped_is_ended_when_it_goes(world: EndingWorld) -> None:
    """Who may write statuses hides nothing from the broker that has made the anchor."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.cluster.resources[WEB].status = {}
    world.register(web(grants=web().grants[:1], generation=2))
    await world.reconciler.visit(WEB)

    assert not world.accepts(token)


async def test_a_grant_of_another_account_is_not_prepared_before_the_old_one_has_ended(world: EndingWorld) -> None:
    """The status has one place for it: the next broker has to find the old one there."""
    world.cluster.delete_fault = AWAY
    changed = replace(web().grants[1], service_account="new")
    world.register(web(grants=(web().grants[0], changed), generation=2))
    await world.settle()

    assert grant_anchor("uid-1", changed).name not in world.cluster.anchors
    listed = {entry["name"]: entry["subject"] for entry in world.cluster.resources[WEB].status["grants"]}
    assert listed[TOGETHER] == "system:serviceaccount:shop:reporter"


async def test_a_hurry_ends_and_leaves_preparing_to_those_who_have_time(world: EndingWorld) -> None:
    """Workers for what has to end are not held by accounts that take long to look at."""
    token = (await world.issue(grant_name=TOGETHER))[1]
    world.register(web(grants=(web().grants[0], grant(name="new", vault=None)), generation=2))
    mints = world.power.calls.count("mint")
    planned = plans(world)
    await world.reconciler.hurry(WEB)

    assert not world.accepts(token)
    assert planned == [0.0]
    assert world.power.calls.count("mint") == mints


async def test_every_mint_names_the_account_that_was_looked_at(world: EndingWorld) -> None:
    """Also that of a copy in Vault; one that was made again gets nothing before it was looked at."""
    before = world.in_vault()
    world.cluster.account_uid = "account-2"
    world.clock.pass_(11 * 3600)
    with pytest.raises(BrokerError, match="anchor_missing"):
        await world.rotator.visit(KEY)
    assert world.in_vault() == before
    assert set(world.rechecked) == {WEB}
    await world.reconciler.visit(WEB)
    await world.rotator.visit(KEY)

    assert world.in_vault() != before


async def test_mints_that_fail_take_up_no_room(world: EndingWorld, room: int) -> None:
    """A client whose account is missing for an hour has its room when the account is back."""
    mint, gone = world.cluster.mint, BrokerError(Reason.SERVICE_ACCOUNT_MISSING, "gone")

    async def missing(spec: TokenSpec) -> MintedToken:
        del spec
        raise gone

    world.cluster.mint = missing  # type: ignore[method-assign]
    for _ in range(room):
        with pytest.raises(BrokerError, match="service_account_missing"):
            await world.issue()
    world.cluster.mint = mint  # type: ignore[method-assign]

    await world.issue()


async def test_anchors_that_cannot_be_made_take_up_no_room(world: EndingWorld, room: int) -> None:
    """And those that were made although nobody heard of it are deleted."""
    ensure = world.cluster.ensure

    async def unheard(client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        made = await ensure(client, which, parent)
        if which.kind is AnchorKind.TOKEN:
            raise AWAY
        return made

    world.cluster.ensure = unheard  # type: ignore[method-assign]
    for _ in range(room):
        with pytest.raises(BrokerError, match="kubernetes_unavailable"):
            await world.issue()
    world.cluster.ensure = ensure  # type: ignore[method-assign]
    await world.until_abandoned()
    await world.issue()

    assert len([name for name in world.cluster.anchors if "-t" in name]) == 1


async def test_the_queue_does_not_grow_by_visits_of_clients_that_end_some_day(world: EndingWorld) -> None:
    """Each visit plans the end, and then the next look before it."""
    world.register(web(not_after=world.clock.now() + timedelta(days=300), generation=2))
    queue, visits = world.reconciler.queue, 500
    for _ in range(visits):
        wait = await world.reconciler.visit(WEB)
        assert wait is not None
        queue.add(WEB, wait)
        queue.forget(WEB)

    assert sum(len(planned._heap) for planned in queue._planned.values()) < visits / 2


async def test_tokens_end_though_nobody_knows_what_is_allowed(world: EndingWorld) -> None:
    """Where the labels of namespaces are too old, nothing is issued or written, and what has to end does."""
    kept = world.in_vault()
    world.labels_known = False
    world.clock.pass_(2)
    world.register(web(generation=2, rotate_requested=world.clock.moment))
    await world.settle()
    with pytest.raises(BrokerError, match="registry_stale"):
        await world.issue()
    still = world.in_vault()
    world.register(web(suspended=True, generation=3))
    await world.settle()

    assert still == kept
    assert not world.tops()

    world.labels_known = True
    world.register(web(generation=4))
    await world.settle()
    assert world.accepts((await world.issue())[1])


async def test_a_token_of_its_own_end_is_revoked_however_its_grant_revokes_now(world: EndingWorld) -> None:
    """Its anchor is there still, and called by the client, the grant and the id alone."""
    token_id, token = await world.issue()
    _, spared = await world.issue()
    together = tuple(replace(one, revocation=Revocation.GRANT) for one in web().grants)
    world.register(web(grants=together, generation=2))
    await world.settle()
    await world.revoker.by_id(world.cluster.resources[WEB].client, token_id, Origin("r"))

    assert not world.accepts(token)
    assert world.accepts(spared)


async def test_ids_of_others_are_like_ids_of_nobody(world: EndingWorld) -> None:
    """No answer, and the same calls, also where no grant of the client gives tokens an end of their own now."""
    world.register(other())
    await world.settle()
    foreign, token = await world.issue(other().id)
    mine = web(grants=(grant(), grant(name=TOGETHER)))
    calls = []
    for token_id in (foreign, "0123456789abcdef01234567"):
        world.power.calls.clear()
        await world.revoker.by_id(mine, token_id, Origin("r"))
        calls.append(world.power.calls.copy())

    assert calls[0] == calls[1]
    assert calls[0].count("delete") == len(mine.grants)
    assert world.accepts(token)


@pytest.mark.parametrize(
    ("token_id", "reason"),
    [
        ("0f3c9a8e-5b8e-4a39-9d1b-5a8b1d0f9a11", Reason.NOT_INDIVIDUALLY_REVOCABLE),
        ("0F3C9A8E-5B8E-4A39-9D1B-5A8B1D0F9A11", Reason.INVALID_REQUEST),
        ("0123456789abcdef0123456", Reason.INVALID_REQUEST),
        ("0123456789ABCDEF01234567", Reason.INVALID_REQUEST),
        ("0123456789abcdef01234567\n", Reason.INVALID_REQUEST),
        ("../tokenbroker-anchor-x", Reason.INVALID_REQUEST),
    ],
)
async def test_what_is_no_id_of_a_single_token_says_what_it_is(
    world: EndingWorld, token_id: str, reason: Reason
) -> None:
    """By its looks alone, so that nobody learns which ids exist; the API server is not asked."""
    world.power.calls.clear()
    with pytest.raises(BrokerError) as refused:
        await world.revoker.by_id(web(), token_id, Origin("r"))

    assert refused.value.reason is reason
    assert token_id not in refused.value.detail
    assert not world.power.calls


async def test_an_anchor_that_is_made_late_goes_at_the_next_visit(world: EndingWorld) -> None:
    """The call of a leader that was can arrive when the next one has ended a client's tokens already."""
    late = dict(world.cluster.anchors)
    world.register(web(suspended=True, generation=2))
    await world.settle()
    ended = world.tops()
    world.cluster.anchors |= {name: f"{uid}-late" for name, uid in late.items() if name.count("-") == 2}  # the tops
    again = await world.reconciler.visit(WEB)

    assert not ended
    assert not world.tops()
    assert again is not None
    assert RECHECK_SECONDS <= again <= 2 * RECHECK_SECONDS
