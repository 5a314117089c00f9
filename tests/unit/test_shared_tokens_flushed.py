"""A token that others have is handed out by what holds at that moment: whatever was decided before does not count."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.audit_record import Origin
from broker.model.client import Client, Proofs, TtlRange
from broker.model.decision import Ask
from broker.model.limits import NamespaceLimits
from broker.model.proof import ProvedBy
from broker.services.mint import Issued
from tests.support.endings import TOGETHER, WEB, EndingWorld, web
from tests.support.rotation import KEY
from tests.support.storm import BY_SECRET, Storm, instances, jtis

ID, GENERATION = KEY.client, instances().generation
Change = Callable[[Storm], None]


def edited(**changes: object) -> Change:
    """Change the specification; the broker has not prepared its grants anew."""

    def change(storm: Storm) -> None:
        registration = storm.registry.known[ID]
        client = instances(generation=GENERATION + 1, **changes)
        storm.registry.known[ID] = replace(registration, client=client, uid=client.uid, generation=client.generation)
        storm.shared.changed(ID)

    return change


def granted(**changes: object) -> Change:
    """Change the grant."""
    first, *rest = instances().grants
    return edited(grants=(replace(first, **changes), *rest))  # type: ignore[arg-type]


def removed(storm: Storm) -> None:
    """Remove the client, as the registry hears it."""
    del storm.registry.known[ID]
    storm.shared.changed(ID)


def deleting(storm: Storm) -> None:
    """Have it wait for its finalizers."""
    storm.registry.known[ID] = replace(storm.registry.known[ID], deleting=True)
    storm.shared.changed(ID)


def invalid(storm: Storm) -> None:
    """Make nonsense of its specification."""
    storm.registry.invalidate(ID)
    storm.shared.changed(ID)


def stale(storm: Storm) -> None:
    """Lose sight of who is registered."""
    storm.registry.stale = True


def barred(storm: Storm) -> None:
    """Find that the account may do what it must not (``expect.deny``)."""
    storm.book.bar(storm.client, storm.client.grants[0], Fault(Reason.ACCESS_NOT_AS_DECLARED, "denied"))


def ended(storm: Storm) -> None:
    """Let all of its tokens be owed an end."""
    storm.book.withdraw(ID, "default")


def forgotten(storm: Storm) -> None:
    """Let nothing be handed out for the client."""
    storm.book.forget(ID)


def over(storm: Storm) -> None:
    """Let the registration's own end pass: nobody tells."""
    storm.clock.pass_(30)


def opted_out(storm: Storm) -> None:
    """Take the label off the namespace."""
    storm.limits = NamespaceLimits(opted_in=False)


def limited(storm: Storm) -> None:
    """Let only other kinds of proofs count."""
    storm.limits = NamespaceLimits(proofs=frozenset({"oidc"}))


def unlocked(storm: Storm) -> None:
    """Lift the broker's own limits."""
    storm.locked = False


SECRETS = Proofs(secret_digests=(b"\x01" * 32,))
CHANGES: dict[str, tuple[Change, Reason]] = {
    "suspended": (edited(suspended=True), Reason.CLIENT_SUSPENDED),
    "its time is over": (over, Reason.CLIENT_EXPIRED),
    "removed": (removed, Reason.INVALID_CLIENT),
    "being deleted": (deleting, Reason.INVALID_CLIENT),
    "not valid": (invalid, Reason.INVALID_CLIENT),
    "made again": (edited(uid="made-again"), Reason.INVALID_CLIENT),
    "its secret was taken away": (edited(proofs=SECRETS), Reason.ANCHOR_MISSING),
    "its grant was taken away": (edited(grants=instances().grants[1:]), Reason.GRANT_UNKNOWN),
    "its grant is of another account": (granted(service_account="another"), Reason.ANCHOR_MISSING),
    "its grant is not for the audience": (granted(audiences=("b",)), Reason.AUDIENCE_NOT_ALLOWED),
    "its grant does not allow the TTL": (granted(ttl=TtlRange(600, 840)), Reason.TTL_OUT_OF_RANGE),
    "its tokens are not shared": (granted(reuse_seconds=0), Reason.ANCHOR_MISSING),
    "what it must not do is allowed": (barred, Reason.ACCESS_NOT_AS_DECLARED),
    "its tokens have to end": (ended, Reason.ANCHOR_MISSING),
    "it may have nothing": (forgotten, Reason.ANCHOR_MISSING),
    "the registry is stale": (stale, Reason.REGISTRY_STALE),
    "its namespace is opted out": (opted_out, Reason.GRANT_FORBIDDEN),
    "its proof does not count": (limited, Reason.INVALID_CLIENT),
    "the locks are not in force": (unlocked, Reason.POLICY_MISSING),
}
FULL_ASK = Ask("default", "15m", "a")


def ending_soon() -> Client:
    """Return the client with an end of its registration that is near, but later than any test but one gets."""
    storm = Storm()
    return instances(not_after=storm.clock.now() + timedelta(seconds=20))


@pytest.mark.parametrize("what", CHANGES)
async def test_who_waits_is_decided_anew(what: str) -> None:
    """The mint succeeds, and nobody of those who wait for it gets the token, nor does the one who asked first."""
    change, reason = CHANGES[what]
    storm = await Storm.of(ending_soon(), held=True)
    asking = [storm.ask(ask=FULL_ASK) for _ in range(5)]
    await storm.waiting()
    change(storm)
    storm.mints.open.set()
    told = await asyncio.gather(*asking, return_exceptions=True)

    assert [one.reason for one in told if isinstance(one, BrokerError)] == [reason] * 5
    assert storm.audit.records == []
    assert len(storm.shared) == 0


@pytest.mark.parametrize("what", CHANGES)
async def test_nothing_is_handed_out_again_after_a_change(what: str) -> None:
    """Also to a request whose client was looked up just before."""
    change, reason = CHANGES[what]
    storm = await Storm.of(ending_soon())
    client = storm.client
    await storm.ask(ask=FULL_ASK)
    assert len(storm.shared) == 1
    change(storm)
    with pytest.raises(BrokerError) as refused:
        await storm.ask(client, FULL_ASK)

    assert refused.value.reason is reason
    assert len(storm.audit.records) == 1


HARMLESS: dict[str, dict[str, object]] = {
    "owner": {"owner": "somebody else"},
    "when new tokens were asked for": {"rotate_requested": Storm().clock.now()},
    "suspended and resumed": {"generation": GENERATION + 2},
}


@pytest.mark.parametrize("what", HARMLESS)
async def test_who_waits_gets_a_new_token_where_that_is_allowed(what: str) -> None:
    """What was minted before the change is handed out to nobody."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(5)]
    await storm.waiting()
    await storm.register(instances(**({"generation": GENERATION + 1} | HARMLESS[what])))
    storm.mints.open.set()
    issued = await asyncio.gather(*asking)

    assert jtis(storm.audit.records) == {issued[0].token.jti}
    assert storm.mints.asked == 2
    assert len(storm.cluster.tokens) == 2


async def test_a_mint_of_before_an_edit_that_fails_is_no_failure_of_those_who_wait() -> None:
    """They go on with one of their own, but for the one whose request it was."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(5)]
    await storm.waiting()
    edited(owner="somebody else")(storm)
    storm.mints.fail_once(BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away"))
    storm.mints.open.set()
    first, *others = await asyncio.gather(*asking, return_exceptions=True)

    assert isinstance(first, BrokerError)
    assert [one for one in others if isinstance(one, BaseException)] == []
    assert len(jtis(storm.audit.records)) == 1
    assert storm.mints.asked == 2


async def test_an_edit_that_prepares_nothing_anew_is_told_apart_too() -> None:
    """The grants are what they were, and so is the book."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(5)]
    await storm.waiting()
    edited(owner="somebody else")(storm)
    storm.mints.open.set()
    issued = await asyncio.gather(*asking)

    assert {one.token.jti for one in issued} == jtis(storm.audit.records)
    assert [len(jtis(storm.audit.records)), storm.mints.asked, len(storm.shared)] == [1, 2, 1]


async def test_who_waits_while_the_grant_is_taken_out_and_put_back_gets_a_new_token() -> None:
    """On the same anchor: what was begun before the finding is handed out to nobody."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(5)]
    await storm.waiting()
    barred(storm)
    await storm.register(instances())
    storm.mints.open.set()
    issued = await asyncio.gather(*asking)

    _, second = storm.cluster.tokens

    assert {one.token.value.reveal() for one in issued} == {second}


async def test_who_waits_while_sharing_is_switched_off_comes_again() -> None:
    """For a token of his own."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(5)]
    await storm.waiting()
    single = tuple(replace(one, reuse_seconds=0) for one in instances().grants)
    await storm.register(instances(grants=single, generation=GENERATION + 1))
    storm.mints.open.set()
    told = await asyncio.gather(*asking, return_exceptions=True)

    assert [one.reason for one in told if isinstance(one, BrokerError)] == [Reason.ANCHOR_MISSING] * 5


def revoked(storm: Storm) -> None:
    """Ask for new tokens (``client revoke-all``), which is no edit."""
    registration = storm.registry.known[ID]
    client = replace(storm.client, rotate_requested=storm.clock.now())
    storm.registry.known[ID] = replace(registration, client=client)
    storm.shared.changed(ID)


@pytest.mark.parametrize(
    "change",
    [edited(suspended=True), removed, deleting, invalid, revoked, edited()],
    ids=["suspended", "removed", "deleting", "invalid", "revoked", "edited"],
)
async def test_what_a_change_makes_worthless_leaves_the_memory_at_once(change: Change) -> None:
    """It does not wait there until it is asked for, or its time is over."""
    storm = await Storm.of(instances())
    await storm.ask()
    await storm.ask(ask=Ask("other"))
    storm.shared.changed(ID)
    kept = len(storm.shared)
    change(storm)

    assert (kept, len(storm.shared)) == (2, 0)
    assert storm.shared._of == {}


@pytest.mark.parametrize("change", [barred, ended, forgotten])
async def test_a_grant_that_is_prepared_again_begins_anew(change: Change) -> None:
    """Also on the same anchor, where the leader has not ended it yet."""
    storm = await Storm.of(instances())
    first = await storm.ask()
    prepared = storm.book.get(storm.client, storm.client.grants[0])
    change(storm)
    await storm.register(instances())
    again = await storm.ask()

    assert storm.book.get(storm.client, storm.client.grants[0]) == prepared
    assert again.token.jti != first.token.jti


async def test_what_was_minted_on_an_anchor_or_account_of_before_is_not_handed_out() -> None:
    """The book knows another one by now."""
    storm = await Storm.of(instances())
    first = await storm.ask()
    anchor = next(
        name
        for name, uid in storm.cluster.anchors.items()
        if uid == storm.cluster.tokens[first.token.value.reveal()][0]
    )
    del storm.cluster.anchors[anchor]
    await storm.register(storm.client)
    again = await storm.ask()

    assert not storm.cluster.accepts(first.token.value.reveal())
    assert storm.cluster.accepts(again.token.value.reveal())


@pytest.fixture
async def world() -> EndingWorld:
    """Return a world with a reconciler, and a client one of whose grants is shared."""
    world = EndingWorld()
    world.register(sharing())
    world.reconciler.changed(WEB)
    await world.settle()
    return world


def sharing(**changes: object) -> Client:
    """Return the client of the world."""
    grants = tuple(replace(one, reuse_seconds=60) if one.name == TOGETHER else one for one in web().grants)
    return web(**({"grants": grants} | changes))


async def issued(world: EndingWorld) -> Issued:
    """Hand a token out to one of the client's instances."""
    client = world.cluster.resources[WEB].client
    return await world.issuer.issue(client, Ask(TOGETHER), Origin("request", "192.0.2.1", BY_SECRET))


async def test_a_denied_right_that_is_found_flushes_at_the_look(world: EndingWorld) -> None:
    """Nothing more is handed out, and after it was mended a new token, on an anchor that lives."""
    first, again = await issued(world), await issued(world)
    world.cluster.denied.add("reporter")
    await world.settle()
    with pytest.raises(BrokerError, match="access_not_as_declared"):
        await issued(world)
    world.cluster.denied.clear()
    await world.settle()
    later = await issued(world)

    assert again.token is first.token
    assert [world.accepts(one.token.value.reveal()) for one in (first, later)] == [False, True]


async def test_revoke_all_flushes_when_it_is_heard_of(world: EndingWorld) -> None:
    """Before the client is visited: nobody gets a token that has ended, however soon he comes back."""
    first = await issued(world)
    await world.revoke_all(now=False)
    world.shared.changed(WEB)
    with pytest.raises(BrokerError, match="anchor_missing"):
        await issued(world)
    await world.settle()
    later = await issued(world)

    assert [world.accepts(one.token.value.reveal()) for one in (first, later)] == [False, True]


async def test_suspended_and_resumed_before_anybody_looked(world: EndingWorld) -> None:
    """What was minted before does not come back."""
    first = await issued(world)
    world.register(sharing(suspended=True, generation=2))
    world.reconciler.changed(WEB)
    with pytest.raises(BrokerError, match="client_suspended"):
        await issued(world)
    world.register(sharing(generation=3))
    world.reconciler.changed(WEB)
    await world.settle()
    later = await issued(world)

    assert [world.accepts(one.token.value.reveal()) for one in (first, later)] == [False, True]


async def test_a_proof_of_another_kind_gets_its_own(world: EndingWorld) -> None:
    """Suspending one is not needed to tell them apart."""
    first = await issued(world)
    client = world.cluster.resources[WEB].client
    by = ProvedBy("publicKeys", str(client.id))
    other = await world.issuer.issue(client, Ask(TOGETHER), Origin("request", "192.0.2.1", by))

    assert other.token.jti != first.token.jti
