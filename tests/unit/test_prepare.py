"""A grant is looked at before anything is issued, and what is found ends what was; among fakes."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import AnchorId, grant_anchor, trial_anchor, vault_anchor
from broker.model.client import Client, ClientId, Expect, Grant, Revocation
from broker.model.decision import Allowed, Rules
from broker.model.former_grants import ListedAnchor
from broker.model.limits import NamespaceLimits
from broker.model.prepared import Prepared
from broker.model.sensitive import Sensitive
from broker.model.status import AccessFacts
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.services import courtesy
from broker.services.anchored import AnchoredGrants
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook
from broker.services.mint import GrantMinter
from broker.services.prepare import LOOKS_AGAIN, Hands, Preparer
from broker.services.reconcile import WORKERS
from broker.services.rush import Rush
from broker.services.token_anchors import TokenAnchors
from broker.services.verify import STAND_BACK_SECONDS, Verifier
from tests.support.rotation import KEY, FakeCluster, HandClock, NoAudit, Power, client, grant
from tests.unit.test_verify import FakeReviews

API = "https://kubernetes.default.svc"
STRONG = BrokerError(Reason.ACCOUNT_TOO_STRONG, "strong", operator_detail="it may create pods")
BROKEN = BrokerError(Reason.ACCESS_NOT_AS_DECLARED, "broken")
AWAY = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
FORBIDDEN = BrokerError(Reason.BROKER_NOT_AUTHORIZED, "no Role")


@dataclass
class FakeAccess:
    """Implements AccessCheck: says what it is told to."""

    found: AccessFacts | BrokerError = field(default_factory=AccessFacts)
    looked_with: list[str] = field(default_factory=list)
    wanted: list[ClientId] = field(default_factory=list)
    is_routine: bool = True
    forgotten: list[ClientId] = field(default_factory=list)

    async def check(self, client: Client, grant: Grant, token: MintedToken) -> AccessFacts:
        """Note the token, and answer."""
        assert grant in client.grants
        self.looked_with.append(token.value.reveal())
        if isinstance(self.found, BrokerError):
            raise self.found
        return self.found

    def wait(self, client: Client, grants: Iterable[Grant]) -> float:
        """Let each look wait for a second."""
        assert client.grants == tuple(grants)
        return 1.0

    def routine(self, client: Client, grant: Grant) -> bool:
        """Tell what a test says."""
        assert grant in client.grants
        return self.is_routine

    def want(self, client_id: ClientId) -> None:
        """Note it."""
        self.wanted.append(client_id)

    def forget(self, client_id: ClientId) -> None:
        """Note it."""
        self.forgotten.append(client_id)


@dataclass
class Trials:
    """Implements Minter: tokens on trial are named after their audience."""

    specs: list[TokenSpec] = field(default_factory=list)
    clock: HandClock = field(default_factory=HandClock)
    lost: Callable[[], None] | None = None
    """What happens once, while the anchor turns out to be gone."""

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Try one out."""
        self.specs.append(spec)
        if self.lost is not None:
            lost, self.lost = self.lost, None
            lost()
            raise BrokerError(Reason.ANCHOR_MISSING, "gone")
        now = self.clock.now()
        return MintedToken(Sensitive(spec.audience), "jti", now, now, "sha", "account-uid")

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Never called while a grant is prepared."""
        raise AssertionError(spec)


@dataclass
class Refusing(Trials):
    """Mints nothing."""

    error: BrokerError = FORBIDDEN

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Refuse."""
        self.specs.append(spec)
        raise self.error


@dataclass
class Counted:
    """Counts grants whose tokens should have ended."""

    orphaned: int = 0

    def orphans(self, client: ClientId, grants: int) -> None:
        """Set it: there is one client."""
        assert client == KEY.client
        self.orphaned = grants

    def no_orphans(self) -> None:
        """Set it to none."""
        self.orphaned = 0

    def ended(self, why: str) -> None:
        """Count nothing."""


class Callers:
    """Implements :class:`broker.services.courtesy.Callers`: one has a request in flight until it is served."""

    def __init__(self) -> None:
        self.stood_back = 0
        self.come = True
        self.served = asyncio.Event()
        self.served.set()

    async def quiet(self, seconds: float) -> None:
        """Count those who stand back, and let them, however long."""
        assert seconds == courtesy.STAND_BACK_SECONDS
        self.stood_back += 1
        await self.served.wait()

    def lately(self, seconds: float) -> bool:
        """Tell what a test says."""
        assert seconds == courtesy.LATELY_SECONDS
        return self.come


class Bench:
    """A preparer among fakes, and a client."""

    def __init__(self, of: Grant | None = None) -> None:
        self.grant = of or grant()
        self.client = client(grants=(self.grant,))
        self.limits = NamespaceLimits()
        self.cluster, self.access = FakeCluster(Power(), HandClock()), FakeAccess()
        self.trials, self.counted, self.book = Trials(), Counted(), GrantBook()
        self.tokens = TokenAnchors(self.cluster, self.trials.clock)
        anchored = AnchoredGrants()
        self.callers = Callers()
        hands = Hands(
            turns=courtesy.Turns(self.callers),
            anchors=self.cluster,
            minter=self.trials,
            access=self.access,
            ender=Ender(
                self.cluster,
                NoAudit(),
                self.trials.clock,
                self.counted,
                lambda: "request",
                anchored=anchored,
                leader=self.cluster,
            ),
            anchored=anchored,
            tokens=self.tokens,
            leader=self.cluster,
        )
        self.preparer = Preparer(hands, self.book, Rules("tokenbroker", API, limits=lambda _namespace: self.limits))

    async def prepare(self) -> AccessFacts | None:
        """Prepare the grant."""
        return await self.preparer.prepare(self.client, self.grant)

    async def refusal(self) -> BrokerError:
        """Return why the grant is not prepared."""
        with pytest.raises(BrokerError) as refused:
            await self.prepare()
        return refused.value

    @property
    def ready(self) -> bool:
        """Whether tokens may be issued."""
        return self.book.get(self.client, self.grant) is not None

    @property
    def anchors(self) -> set[str]:
        """Which anchors there are: grant, trial, vault."""
        makers = {"grant": grant_anchor, "trial": trial_anchor, "vault": vault_anchor}
        return {kind for kind, make in makers.items() if make("uid-1", self.grant).name in self.cluster.anchors}

    async def with_copy(self) -> None:
        """Prepare the grant, and make what is above its versions in Vault."""
        await self.prepare()
        await self.cluster.ensure(self.client, vault_anchor("uid-1", self.grant))
        assert self.anchors == {"grant", "trial", "vault"}


async def settled() -> None:
    """Let begin what may."""
    for _ in range(10):
        await asyncio.sleep(0)


async def standing_back() -> tuple[Bench, asyncio.Task[AccessFacts | None]]:
    """Return a preparer whose grant works, and a look at it that waits for a caller to be served."""
    bench = Bench()
    await bench.prepare()
    bench.callers.served.clear()
    look = asyncio.create_task(bench.prepare())
    await settled()
    return bench, look


async def test_a_grant_that_works_is_looked_at_again_after_the_callers() -> None:
    """Nothing is asked before; one that does not work yet waits for nobody."""
    bench = Bench()
    bench.callers.served.clear()
    await bench.prepare()
    first = (bench.callers.stood_back, len(bench.trials.specs))
    again = asyncio.create_task(bench.prepare())
    await settled()
    waiting = (bench.callers.stood_back, len(bench.trials.specs))
    bench.callers.served.set()
    await again

    assert (first, waiting) == ((0, 1), (1, 1))
    assert len(bench.trials.specs) == 2


async def test_a_look_that_is_no_routine_waits_for_nobody() -> None:
    """The grant works, but it was not looked at as it is, or somebody wants to know."""
    bench = Bench()
    bench.callers.served.clear()
    bench.access.is_routine = False
    for _ in range(2):
        async with asyncio.timeout(5):
            await bench.prepare()

    assert (bench.callers.stood_back, len(bench.trials.specs)) == (0, 2)


async def test_a_look_of_a_replica_that_leads_no_more_when_its_turn_comes_makes_nothing() -> None:
    """The anchor of a trial, say: what is at the top is asked for right after a look at the lead."""
    bench, look = await standing_back()
    bench.cluster.leading = False
    bench.preparer.forget(bench.client.id)  # so that a trial would need an anchor
    bench.cluster.anchors.pop(trial_anchor("uid-1", bench.grant).name)
    bench.callers.served.set()
    followed = await look

    assert followed is None
    assert bench.anchors == {"grant"}


async def test_a_grant_that_is_forbidden_when_its_turn_comes_is_not_looked_at() -> None:
    """Its tokens end instead."""
    bench, look = await standing_back()
    bench.limits = NamespaceLimits(max_ttl_seconds=1)
    bench.callers.served.set()
    with pytest.raises(BrokerError, match="limits_exceeded"):
        await look

    assert (bench.ready, bench.anchors, len(bench.trials.specs)) == (False, set(), 1)


async def test_a_trial_is_not_begun_anew_by_a_replica_that_leads_no_more() -> None:
    """Its anchor went, and with it went the lead, while a mint was tried out."""
    bench = Bench()
    await bench.prepare()
    bench.trials.lost = lambda: setattr(bench.cluster, "leading", False)
    bench.cluster.anchors.pop(trial_anchor("uid-1", bench.grant).name)

    assert (await bench.refusal()).reason is Reason.ANCHOR_MISSING
    assert "trial" not in bench.anchors


async def test_grants_that_work_are_looked_at_one_by_one_while_callers_come() -> None:
    """Where none come, so many at a time; one that does not work any more waits for none of them."""
    bench = Bench()
    await bench.prepare()
    bench.callers.served.clear()
    looks = [asyncio.create_task(bench.prepare()) for _ in range(LOOKS_AGAIN + 1)]
    await settled()
    beside_callers = bench.callers.stood_back
    bench.callers.come = False
    looks.append(asyncio.create_task(bench.prepare()))
    await settled()
    alone = bench.callers.stood_back
    bench.book.forget(bench.client.id)
    async with asyncio.timeout(5):
        await bench.prepare()
    for look in looks:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)

    assert (beside_callers, alone) == (1, LOOKS_AGAIN)
    assert LOOKS_AGAIN == WORKERS


async def test_a_replica_that_follows_does_not_stand_back() -> None:
    """It asks next to nothing."""
    bench = Bench()
    await bench.prepare()
    bench.cluster.leading = False
    await bench.prepare()

    assert bench.callers.stood_back == 0


async def test_grant_is_looked_at_before_its_anchor_is_made() -> None:
    """The account is asked with a token for the API server, which is bound to the anchor for trials."""
    bench = Bench(grant(audiences=("https://one",)))
    facts = await bench.prepare()

    assert facts == AccessFacts()
    assert [spec.audience for spec in bench.trials.specs] == ["https://one", API]
    assert {spec.anchor.name for spec in bench.trials.specs if spec.anchor} == {trial_anchor("uid-1", bench.grant).name}
    assert bench.access.looked_with == [API]
    prepared = bench.book.get(bench.client, bench.grant)
    assert prepared is not None
    assert prepared.account_uid == "account-uid"
    assert bench.anchors == {"grant", "trial"}


async def test_one_trial_is_enough_for_the_api_servers_own_audience() -> None:
    """It is the one that the account is asked with."""
    bench = Bench()
    await bench.prepare()

    assert [spec.audience for spec in bench.trials.specs] == [API]


@pytest.mark.parametrize("found", [STRONG, BROKEN], ids=lambda error: str(error.reason))
async def test_account_that_will_not_do_gets_no_anchor(found: BrokerError) -> None:
    """Nothing is left of the trial either, at the first look and at each after it."""
    bench = Bench()
    bench.access.found = found
    for _ in range(3):
        assert await bench.refusal() is found
        assert bench.anchors == set()
    assert not bench.ready
    assert bench.book.fault(bench.client, bench.grant) == Fault.of(found)


@pytest.mark.parametrize("found", [STRONG, BROKEN], ids=lambda error: str(error.reason))
async def test_what_is_found_later_ends_what_was_issued(found: BrokerError) -> None:
    """Tokens handed out, those in Vault, and that of the trial; when it is mended, the grant is ready again."""
    bench = Bench()
    await bench.with_copy()
    bench.access.found = found
    await bench.refusal()
    ended = bench.anchors, bench.ready
    bench.access.found = AccessFacts()
    await bench.prepare()
    mended = bench.ready
    await bench.with_copy()
    bench.access.found = found
    await bench.refusal()

    assert ended == (set(), False)
    assert mended
    assert bench.anchors == set()


async def test_limits_that_are_narrowed_end_what_was_issued() -> None:
    """Without another trial, and again at each look, for an anchor may be made late."""
    bench = Bench()
    await bench.with_copy()
    tried = len(bench.trials.specs)
    bench.limits = NamespaceLimits(opted_in=False)
    error = await bench.refusal()
    await bench.cluster.ensure(bench.client, grant_anchor("uid-1", bench.grant))
    await bench.refusal()

    assert error.reason is Reason.GRANT_FORBIDDEN
    assert bench.anchors == set()
    assert len(bench.trials.specs) == tried


async def test_tokens_that_could_not_be_ended_are_counted_and_ended_later() -> None:
    """At the next look; meanwhile nothing is issued."""
    bench = Bench()
    await bench.with_copy()
    bench.access.found, bench.cluster.delete_fault = BROKEN, AWAY
    await bench.refusal()
    orphaned, ready = bench.counted.orphaned, bench.ready
    bench.cluster.delete_fault = None
    await bench.refusal()

    assert (orphaned, ready) == (1, False)
    assert (bench.counted.orphaned, bench.anchors) == (0, set())


async def test_grant_that_changed_is_ended_anew() -> None:
    """What was ended before was of another specification."""
    bench = Bench()
    bench.access.found = BROKEN
    await bench.refusal()
    bench.grant = replace(bench.grant, service_account="other")
    bench.client = client(grants=(bench.grant,))
    await bench.cluster.ensure(bench.client, grant_anchor("uid-1", bench.grant))
    await bench.refusal()

    assert bench.anchors == set()


async def test_client_that_went_is_forgotten_with_its_account() -> None:
    """One of the same name and UID that comes back is ended again, and what was found out is forgotten."""
    bench = Bench()
    bench.access.found = BROKEN
    await bench.refusal()
    bench.preparer.forget(KEY.client)
    await bench.cluster.ensure(bench.client, grant_anchor("uid-1", bench.grant))
    await bench.refusal()

    assert bench.access.forgotten == [KEY.client]
    assert bench.anchors == set()


async def test_api_server_that_is_away_stops_no_grant_that_was_ready() -> None:
    """What was found out still counts; one that was barred stays barred."""
    bench = Bench()
    await bench.prepare()
    bench.access.found = AWAY
    await bench.refusal()
    still = bench.ready
    bench.access.found = BROKEN
    await bench.refusal()
    bench.access.found = AWAY
    await bench.refusal()

    assert still
    assert not bench.ready


async def test_replica_that_does_not_lead_neither_looks_nor_ends() -> None:
    """It issues by the leader's anchor, and not without one."""
    bench = Bench()
    await bench.with_copy()
    bench.cluster.leading = False
    assert await bench.prepare() is None
    followed = bench.ready
    await bench.cluster.delete(KEY.client.namespace, grant_anchor("uid-1", bench.grant).name)
    error = await bench.refusal()
    bench.limits = NamespaceLimits(600)
    narrowed = await bench.refusal()

    assert followed
    assert (error.reason, narrowed.reason) == (Reason.ANCHOR_MISSING, Reason.LIMITS_EXCEEDED)
    assert len(bench.access.looked_with) == 1
    assert bench.anchors == {"trial", "vault"}


async def test_lead_that_is_lost_while_an_anchor_is_looked_for_makes_none() -> None:
    """The next leader may have ended the grant's tokens in between."""
    bench = Bench()
    await bench.prepare()
    await bench.cluster.delete(KEY.client.namespace, grant_anchor("uid-1", bench.grant).name)
    find = bench.cluster.find

    async def lost(client: Client, which: AnchorId) -> Anchor | None:
        bench.cluster.leading = False
        return await find(client, which)

    bench.cluster.find = lost  # type: ignore[method-assign]
    error = await bench.refusal()

    assert error.reason is Reason.ANCHOR_MISSING
    assert "grant" not in bench.anchors


async def test_tokens_that_only_expire_are_bound_to_nothing() -> None:
    """They are looked at all the same; the grant's anchor tells other replicas that they were."""
    bench = Bench(grant(revocation=Revocation.NONE))
    bench.limits = NamespaceLimits(unbound_tokens=True)
    await bench.prepare()

    assert bench.ready
    assert bench.anchors == {"grant"}
    assert [spec.anchor for spec in bench.trials.specs] == [None]
    prepared = bench.book.get(bench.client, bench.grant)
    assert prepared is not None
    assert prepared.bound is None
    assert bench.access.looked_with == [API]


async def test_grant_that_was_mended_and_broken_again_is_ended_again() -> None:
    """Edited away and back, it is the same grant, and has another anchor."""
    broken, mended = grant(expect=Expect(deny=("get secrets",))), grant()
    bench = Bench(broken)
    for generation in range(3):
        for of, found in ((broken, BROKEN), (mended, AccessFacts())):
            bench.grant, bench.access.found = of, found
            bench.client = client(grants=(of,), generation=generation)
            if found is BROKEN:
                await bench.refusal()
                assert bench.anchors == set()
            else:
                await bench.prepare()
                assert bench.anchors == {"grant", "trial"}


async def test_what_another_leader_let_live_is_ended_again() -> None:
    """It may have looked before the account could do too much; what was ended once is not ended for ever."""
    bench = Bench()
    bench.access.found = BROKEN
    await bench.refusal()
    await bench.cluster.ensure(bench.client, grant_anchor("uid-1", bench.grant))
    await bench.refusal()

    assert bench.anchors == set()


async def test_grant_that_cannot_be_ended_for_lack_of_rights_is_counted_and_tried_again() -> None:
    """Label and Role taken away together: its tokens live, and the broker knows that there were any."""
    bench = Bench()
    await bench.with_copy()
    bench.limits = NamespaceLimits(opted_in=False)
    bench.cluster.delete_fault = FORBIDDEN
    await bench.refusal()
    counted = bench.counted.orphaned
    bench.cluster.delete_fault = None
    await bench.refusal()

    assert (counted, bench.counted.orphaned) == (1, 0)
    assert bench.anchors == set()


async def test_grant_that_never_was_prepared_is_no_orphan() -> None:
    """A TokenClient where nobody opted in and the broker has no rights raises no alarm, and is tried again."""
    bench = Bench()
    bench.limits = NamespaceLimits(opted_in=False)
    bench.cluster.delete_fault = FORBIDDEN
    await bench.refusal()
    calls = len(bench.cluster.power.calls)
    await bench.refusal()

    assert bench.counted.orphaned == 0
    assert len(bench.cluster.power.calls) == 2 * calls


async def test_replica_that_follows_asks_nobody_where_the_leader_has_said_all() -> None:
    """The status names the anchor and the account; so what the leader ends is known as soon as its word is."""
    bench = Bench()
    bench.cluster.leading = False
    await bench.preparer.prepare(bench.client, bench.grant, ListedAnchor("anchor-1", "account-1"))
    prepared = bench.book.get(bench.client, bench.grant)

    assert prepared == Prepared(bench.grant, Anchor(grant_anchor("uid-1", bench.grant).name, "anchor-1"), "account-1")
    assert bench.cluster.power.calls == []


async def test_replica_that_follows_without_a_word_pins_the_account_that_is_there() -> None:
    """Clients in a directory have no status."""
    bench = Bench()
    bench.cluster.leading = False
    await bench.cluster.ensure(bench.client, grant_anchor("uid-1", bench.grant))
    await bench.prepare()
    prepared = bench.book.get(bench.client, bench.grant)

    assert prepared is not None
    assert prepared.account_uid == "account-uid"


@pytest.mark.parametrize(
    ("fault", "rechecked"),
    [(STRONG, 0), (BROKEN, 0), (AWAY, 0), (BrokerError(Reason.SERVICE_ACCOUNT_MISSING, "no"), 1), (None, 1)],
)
async def test_asking_for_tokens_hastens_no_look_at_an_account(fault: BrokerError | None, rechecked: int) -> None:
    """A look takes many calls: a client that keeps asking must not cost the API server more than one that waits."""
    bench, asked = Bench(), list[ClientId]()
    if fault is not None:
        bench.book.bar(bench.client, bench.grant, Fault.of(fault))
    minter = GrantMinter(minter=bench.trials, book=bench.book, tokens=bench.tokens, recheck=asked.append)
    with pytest.raises(BrokerError) as refused:
        await minter.mint(bench.client, Allowed(bench.grant, API, 600))

    assert refused.value.reason is (fault.reason if fault else Reason.ANCHOR_MISSING)
    assert len(asked) == rechecked


async def test_looking_again_waits_only_where_there_is_nothing_else_to_do() -> None:
    """Not before the grant is ready, not after it was barred, and not where another replica leads."""
    bench = Bench()
    before = bench.preparer.wait(bench.client)
    await bench.prepare()
    ready = bench.preparer.wait(bench.client)
    bench.cluster.leading = False
    following = bench.preparer.wait(bench.client)
    bench.cluster.leading = True
    bench.access.found = STRONG
    await bench.refusal()

    assert (before, ready, following, bench.preparer.wait(bench.client)) == (0, 1, 0, 0)


async def test_the_look_of_a_client_whose_request_was_refused_is_wanted() -> None:
    """For what may be mended: it is no routine then."""
    bench = Bench()
    bench.preparer.want(bench.client.id)

    assert bench.access.wanted == [bench.client.id]


@pytest.mark.parametrize("reason", [Reason.SERVICE_ACCOUNT_MISSING, Reason.ANCHOR_MISSING, FORBIDDEN.reason])
async def test_a_late_copy_that_cannot_be_minted_has_its_client_looked_at_though_many_are_late(reason: Reason) -> None:
    """The look that would mend it does not stand back for it."""
    bench = Bench()
    rush = Rush(bench.trials.clock)
    rules = Rules("tokenbroker", API, limits=lambda _namespace: bench.limits)
    verifier = Verifier(FakeReviews(), rules, bench.trials.clock, rush)
    bench.preparer._hands = replace(bench.preparer._hands, access=verifier)
    await bench.prepare()
    bench.trials.clock.pass_(1)
    rush.late = lambda: 60.0
    before = bench.preparer.wait(bench.client)
    prepared = bench.book.get(bench.client, bench.grant)
    refusing = Refusing(error=BrokerError(reason, "no"))
    minter = GrantMinter(minter=refusing, book=bench.book, tokens=bench.tokens, recheck=bench.preparer.want)
    assert prepared is not None
    with pytest.raises(BrokerError):
        await minter.mint_below(bench.client, Allowed(bench.grant, API, 600), prepared.anchor)

    assert before >= STAND_BACK_SECONDS
    assert bench.preparer.wait(bench.client) == 0
