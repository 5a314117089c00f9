"""How an account is looked at: what is asked, how often, and what follows. In virtual time, with fakes."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.model.access import Action, PolicyRule, Rules, unread_review
from broker.model.api_resources import Catalogue
from broker.model.client import Expect
from broker.model.decision import Rules as OperatorRules
from broker.model.limits import NamespaceLimits
from broker.model.sensitive import Sensitive
from broker.model.status import AccessFacts
from broker.model.strength import strong_questions
from broker.model.token import MintedToken
from broker.services import verify
from broker.services.rush import Rush
from broker.services.verify import (
    BURST,
    CATALOGUE_SECONDS,
    LATEST_SECONDS,
    LOOK_QUESTIONS,
    QPS,
    STAND_BACK_SECONDS,
    STRENGTH_SECONDS,
    Verifier,
)
from tests.support.discovery import catalogue
from tests.support.rotation import KEY, HandClock, client, grant

PODS = PolicyRule(("get", "list"), ("",), ("pods",))
SECRETS = PolicyRule(("get",), ("",), ("secrets",))
CREATES = PolicyRule(("create",), ("",), ("pods",))
DOUBT = "a webhook cannot list its rules"


@dataclass
class FakeReviews:
    """Implements AccessReviews: what the API server says, and what it was asked."""

    held: Rules = field(default_factory=lambda: Rules((PODS,)))
    allowed_actions: set[str] = field(default_factory=set)
    asked: list[Action] = field(default_factory=list)
    catalogues: int = 0
    tokens: set[str] = field(default_factory=set)
    silent: bool = False
    silent_after: int = 10**9
    namespaces: set[str] = field(default_factory=lambda: {KEY.client.namespace})

    async def rules(self, token: Sensitive, namespace: str) -> Rules:
        """Return the rules."""
        assert namespace in self.namespaces
        self.tokens.add(token.reveal())
        return self.held

    async def allowed(self, token: Sensitive, action: Action, namespace: str) -> bool:
        """Answer a question."""
        assert namespace in self.namespaces
        self.tokens.add(token.reveal())
        self.asked.append(action)
        if self.silent or len(self.asked) > self.silent_after:
            await asyncio.Event().wait()
        return str(action) in self.allowed_actions

    async def catalogue(self) -> Catalogue:
        """Return a small cluster's."""
        self.catalogues += 1
        return catalogue()


class Bench:
    """A verifier among fakes."""

    def __init__(self, *, strong_accounts: bool = False) -> None:
        self.reviews, self.clock = FakeReviews(), HandClock()
        self.limits = NamespaceLimits(strong_accounts=strong_accounts)
        rules = OperatorRules("tokenbroker", "https://kubernetes.default.svc", limits=lambda _namespace: self.limits)
        self.rush = Rush(self.clock)
        self.verifier = Verifier(self.reviews, rules, self.clock, self.rush)

    async def check(self, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), uid: str = "u-1") -> AccessFacts:
        """Look at the account of a client with these expectations."""
        now = self.clock.now()
        token = MintedToken(Sensitive("the-token"), "jti", now, now, "sha", account_uid=uid)
        checked = grant(expect=Expect(allow, deny))
        return await self.verifier.check(client(grants=(checked,)), checked, token)

    def wait(self, *, deny: tuple[str, ...] = (), **changes: Any) -> float:
        """Return how long the next look at such a client has to wait."""
        looked_at = client(grants=(grant(expect=Expect((), deny)),), **changes)
        return self.verifier.wait(looked_at, looked_at.grants)

    def routine(self, **changes: Any) -> bool:
        """Tell whether the next look at such a client is routine."""
        looked_at = client(grants=(grant(expect=Expect((), ())),), **changes)
        return self.verifier.routine(looked_at, looked_at.grants[0])

    async def refusal(self, **expectations: tuple[str, ...]) -> BrokerError:
        """Return the error of a look."""
        with pytest.raises(BrokerError) as refused:
            await self.check(**expectations)  # type: ignore[arg-type]
        return refused.value


async def test_weak_account_without_expectations_takes_one_question() -> None:
    """Its rules, asked as the account itself; nothing is asked about what they show."""
    bench = Bench()

    assert await bench.check() == AccessFacts()
    assert (bench.reviews.asked, bench.reviews.catalogues) == ([], 0)
    assert bench.reviews.tokens == {"the-token"}


async def test_strong_account_is_refused_with_its_reasons() -> None:
    """Three are named and the others counted; the caller is told no name."""
    bench = Bench()
    bench.reviews.held = Rules(
        (SECRETS, CREATES, replace(CREATES, resources=("pods/exec",)), replace(CREATES, resources=("secrets",)))
    )
    error = await bench.refusal()

    assert error.reason is Reason.ACCOUNT_TOO_STRONG
    assert "The account reporter is strong: it may" in error.operator_detail
    assert "; and 1 more. Take these rights" in error.operator_detail
    assert error.operator_detail.count("by the rule") == 3
    assert "reporter" not in error.detail


async def test_three_reasons_are_all_named() -> None:
    """Nothing more is counted then."""
    bench = Bench()
    bench.reviews.held = Rules((SECRETS, CREATES, replace(CREATES, resources=("pods/exec",))))

    assert "more" not in (await bench.refusal()).operator_detail


async def test_strong_account_passes_where_it_is_allowed() -> None:
    """It is shown as strong, and its expectations are looked at all the same."""
    bench = Bench(strong_accounts=True)
    bench.reviews.held = Rules((SECRETS,))

    assert await bench.check() == AccessFacts(strong=True)
    assert (await bench.refusal(deny=("get secrets",))).reason is Reason.ACCESS_NOT_AS_DECLARED


async def test_rules_in_doubt_are_asked_about_once_an_hour() -> None:
    """All questions, sequentially; afterwards the answer is remembered, also that it is a weak one."""
    bench = Bench()
    bench.reviews.held = Rules((PODS,), DOUBT)
    await bench.check()
    first = list(bench.reviews.asked)
    bench.clock.pass_(STRENGTH_SECONDS - 1)
    await bench.check()
    still = len(bench.reviews.asked)
    bench.clock.pass_(1)
    await bench.check()

    assert first == list(strong_questions("shop"))
    assert still == len(first)
    assert len(bench.reviews.asked) == 2 * len(first)


async def test_strength_that_only_the_authorizer_knows() -> None:
    """Refused by its word; remembered for the hour, and named without a rule."""
    bench = Bench()
    bench.reviews.held, bench.reviews.allowed_actions = Rules((PODS,), DOUBT), {"create pods"}
    error = await bench.refusal()
    asked = len(bench.reviews.asked)
    again = await bench.refusal()

    assert error.reason is again.reason is Reason.ACCOUNT_TOO_STRONG
    assert "it may create pods, which runs code" in error.operator_detail
    assert "by the rule" not in error.operator_detail
    assert len(bench.reviews.asked) == asked


async def test_account_that_was_made_again_is_asked_about_anew() -> None:
    """What was found out was about another one."""
    bench = Bench()
    bench.reviews.held = Rules((PODS,), DOUBT)
    await bench.check()
    await bench.check(uid="u-2")

    assert len(bench.reviews.asked) == 2 * len(strong_questions("shop"))


async def test_client_that_went_is_forgotten() -> None:
    """And other clients are not."""
    bench = Bench()
    bench.reviews.held = Rules((PODS,), DOUBT)
    await bench.check()
    bench.verifier.forget(replace(KEY.client, name="other"))
    await bench.check()
    before = len(bench.reviews.asked)
    bench.verifier.forget(KEY.client)
    await bench.check()

    assert (before, len(bench.reviews.asked)) == (len(strong_questions("shop")), 2 * len(strong_questions("shop")))


async def test_strength_that_the_rules_show_needs_no_question() -> None:
    """Also where there may be more."""
    bench = Bench(strong_accounts=True)
    bench.reviews.held = Rules((SECRETS,), DOUBT)

    assert (await bench.check()).strong
    assert bench.reviews.asked == []


async def test_what_the_cluster_serves_is_read_every_ten_minutes() -> None:
    """Only where there is an expectation to read."""
    bench = Bench()
    await bench.check(allow=("list pods",))
    bench.clock.pass_(CATALOGUE_SECONDS)
    await bench.check(allow=("list pods",))
    before = bench.reviews.catalogues
    bench.clock.pass_(1)
    await bench.check(allow=("list pods",))

    assert (before, bench.reviews.catalogues) == (1, 2)


async def test_what_holds_is_certain_and_asks_nothing() -> None:
    """Allowed by a rule, denied by none."""
    bench = Bench()

    assert await bench.check(allow=("list pods",), deny=("get secrets", "create pods")) == AccessFacts()
    assert bench.reviews.asked == []


async def test_denied_right_names_three_of_its_rules() -> None:
    """To the operator; the caller learns that something is wrong, not what."""
    bench = Bench()
    error = await bench.refusal(deny=("get pods", "list pods", "watch pods", "* pods"))

    assert error.reason is Reason.ACCESS_NOT_AS_DECLARED
    assert f"deny 'get pods' does not hold: the rule {PODS} allows it" in error.operator_detail
    assert error.operator_detail.count("does not hold") == 3
    assert "pods" not in error.detail


async def test_missing_right_is_a_certain_doubt() -> None:
    """It stops nothing."""
    facts = await Bench().check(allow=("list configmaps",))

    assert facts == AccessFacts(certain=True, doubts=("allow 'list configmaps' does not hold: no rule allows it.",))


async def test_expectation_in_doubt_is_settled_by_the_authorizer() -> None:
    """Denied and not allowed: held. Denied and allowed: refused, by the authorizer's word."""
    bench = Bench()
    bench.reviews.held = Rules((PODS,), DOUBT)
    held = await bench.check(allow=("list pods",), deny=("get configmaps",))
    bench.reviews.allowed_actions = {"list configmaps"}
    error = await bench.refusal(deny=("get configmaps",))

    assert held == AccessFacts()
    assert "the API server's authorizer allows it" in error.operator_detail
    assert [str(one) for one in bench.reviews.asked if one.resource == "configmaps"] == [
        "get configmaps",
        "list configmaps",
        "watch configmaps",
        "patch configmaps",
        "delete configmaps",
        "deletecollection configmaps",
        "get configmaps --subresource=status",
        "patch configmaps --subresource=status",
        "update configmaps --subresource=status",
    ] * 2


async def test_expectation_that_nobody_can_settle_is_no_pass() -> None:
    """No review asks about any resource."""
    bench = Bench()
    bench.reviews.held = Rules((PODS,), DOUBT)
    facts = await bench.check(deny=("delete *",))

    assert facts == AccessFacts(certain=False, doubts=("deny 'delete *' could not be verified.",))


@pytest.mark.parametrize("kind", ["allow", "deny"])
async def test_expectation_that_means_nothing_in_the_cluster_is_no_pass(kind: str) -> None:
    """It is told first, and what else does not hold after it."""
    bench = Bench()
    expectations = {"allow": ("list configmaps",), "deny": ()}
    expectations[kind] = (*expectations[kind], "get sprockets")
    facts = await bench.check(allow=expectations["allow"], deny=expectations["deny"])

    assert not facts.certain
    assert "get sprockets" in facts.doubts[0]
    assert "allow 'list configmaps' does not hold" in facts.doubts[1]


async def test_three_doubts_are_told() -> None:
    """A condition has room for so many."""
    texts = ("get sprockets", "get wheels", "get cogs", "get gears")

    assert len((await Bench().check(allow=texts)).doubts) == 3


def named(resource: str, count: int, *verbs: str) -> PolicyRule:
    """Return a rule that names many objects."""
    return PolicyRule(verbs, ("",), (resource,), tuple(f"name-{number}" for number in range(count)))


async def test_expectation_with_many_names_is_not_asked_about() -> None:
    """Sixteen of them about a Role of 500 names ask nothing, and none of them passes."""
    bench = Bench()
    bench.reviews.held = Rules((named("nodes", 500, "*"),))
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    facts = await bench.check(deny=tuple(f"{verb} {word}" for verb in verbs for word in ("nodes", "no")))

    assert bench.reviews.asked == []
    assert not facts.certain
    assert facts.doubts[0] == (
        "deny 'get nodes' could not be verified: it would take more than 100 questions to the API server."
    )


async def test_questions_of_one_look_are_bounded() -> None:
    """However many expectations there are, each within its own bound: one for which none are left does not pass."""
    bench = Bench()
    many = ("nodes", "namespaces", "nodes/checkpoint")
    few = named("nodes/metrics", 10, "get")
    bench.reviews.held = Rules((*(named(resource, 90, "create", "deletecollection") for resource in many), few))
    facts = await bench.check(
        deny=(
            *(f"{verb} {resource}" for verb in ("create", "deletecollection") for resource in ("nodes", "namespaces")),
            "create nodes --subresource=checkpoint",
            "get nodes --subresource=metrics",
        )
    )

    assert len(bench.reviews.asked) == 370 <= LOOK_QUESTIONS
    assert facts == AccessFacts(
        certain=False,
        doubts=(f"deny {'create nodes --subresource=checkpoint'!r} could not be verified: {verify._TOO_MANY}.",),
    )


async def test_the_same_question_is_asked_once_in_a_look() -> None:
    """Expectations overlap: whoever may list reads, too."""
    bench = Bench()
    bench.reviews.held = Rules((), DOUBT)
    await bench.check(allow=("list configmaps",), deny=("get configmaps", "list configmaps", "watch configmaps"))

    about = [one for one in bench.reviews.asked if one.resource == "configmaps"]
    assert len(about) == len(set(about)) > 5


async def test_a_slow_authorizer_holds_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """All questions about an account have one deadline together; past it nothing counts as found out."""
    monkeypatch.setattr(verify, "LOOK_SECONDS", 0.01)
    bench = Bench()
    bench.reviews.held, bench.reviews.silent = Rules((), DOUBT), True
    error = await bench.refusal(deny=("get secrets",))

    assert error.reason is Reason.KUBERNETES_TIMEOUT
    assert "did not answer all questions about a granted account within 0.01 s" in error.operator_detail
    assert error.retry_after == 2
    assert bench.wait(deny=("get secrets",)) == 0


@pytest.mark.parametrize("held", [Rules((SECRETS,)), Rules((SECRETS,), DOUBT)])
async def test_what_the_rules_show_is_found_before_anything_is_asked(held: Rules) -> None:
    """An authorizer that is slow, or is made slow, keeps nothing from being found."""
    bench = Bench(strong_accounts=True)
    bench.reviews.held, bench.reviews.silent = held, True
    error = await bench.refusal(allow=("get nodes",), deny=("get secrets",))

    assert error.reason is Reason.ACCESS_NOT_AS_DECLARED
    assert bench.reviews.asked == []


async def test_what_was_found_before_the_authorizer_fell_silent_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that takes too long says nothing of what it has not come to, and all of what it has."""
    monkeypatch.setattr(verify, "LOOK_SECONDS", 0.05)
    bench = Bench(strong_accounts=True)
    bench.reviews.held = Rules((SECRETS, PolicyRule(("list",), ("",), ("nodes",))), "")
    bench.reviews.allowed_actions = {"list nodes"}
    bench.reviews.silent_after = 3
    error = await bench.refusal(deny=("list nodes", "get nodes"))

    assert error.reason is Reason.ACCESS_NOT_AS_DECLARED
    assert "list nodes" in error.operator_detail


async def test_looking_again_keeps_to_a_rate() -> None:
    """By the questions that the last look took: beyond the burst it waits for its turn; asking hastens nothing."""
    bench = Bench()
    bench.reviews.held = Rules((PODS,), DOUBT)
    await bench.check(deny=("get secrets",))
    cost = len(bench.reviews.asked) + 1
    first, second = (2 * cost - BURST) / QPS, cost / QPS
    waits = []
    for seconds in (0, 0, first / 2, first / 2, 0, second):
        bench.clock.pass_(seconds)
        waits.append(bench.wait(deny=("get secrets",)))

    assert cost < BURST < 2 * cost
    assert waits == pytest.approx([0, first, first / 2, 0, second, 0], abs=1e-3)


async def test_while_many_copies_are_due_another_look_stands_back_but_not_for_long() -> None:
    """A look comes at the latest when it would have come without them, and one that nobody has made yet at once."""
    bench = Bench()
    bench.rush.late = lambda: 60.0
    new = bench.wait()
    await bench.check()
    waits = [bench.wait()]
    bench.rush.late = lambda: 0.0
    before = bench.rush.on
    bench.clock.pass_(LATEST_SECONDS - 10)
    bench.rush.late = lambda: 60.0
    waits.append(bench.wait())
    bench.clock.pass_(10)
    waits.append(bench.wait())

    assert not before
    assert new == waits[2] == 0
    assert STAND_BACK_SECONDS <= waits[0] <= 2 * STAND_BACK_SECONDS
    assert waits[1] == pytest.approx(10)


async def test_a_look_that_can_stand_back_no_more_waits_for_its_turn() -> None:
    """However long copies are late: all at once would be too many for the API server."""
    bench = Bench()
    await bench.check()
    bench.clock.pass_(LATEST_SECONDS)
    bench.verifier._namespaces[KEY.client.namespace].bucket.reserve(BURST + int(QPS))
    bench.rush.late = lambda: 60.0

    assert bench.rush.on
    assert bench.wait() == pytest.approx(1, abs=0.1)


async def test_a_look_that_is_wanted_is_no_routine_but_waits_for_its_turn() -> None:
    """Once: the next one stands back again. That of a client nobody knows is no news, and takes no memory."""
    bench = Bench()
    unknown = replace(KEY.client, name="unknown"), replace(KEY.client, namespace="unknown")
    await bench.check()
    bench.clock.pass_(1)
    bench.rush.late = lambda: 60.0
    before = bench.wait()
    for one in (*unknown, KEY.client):
        bench.verifier.want(one)
    wanted = bench.wait()
    bench.verifier._namespaces[KEY.client.namespace].bucket.reserve(BURST + int(QPS))
    in_turn = bench.wait()
    bench.clock.pass_(in_turn)
    await bench.check()

    assert before >= STAND_BACK_SECONDS
    assert wanted == 0
    assert in_turn == pytest.approx(1, abs=0.1)
    assert bench.wait() >= STAND_BACK_SECONDS
    assert list(bench.verifier._namespaces) == [KEY.client.namespace]
    assert list(bench.verifier._namespaces[KEY.client.namespace].clients) == [KEY.client.name]


async def test_a_look_is_routine_at_a_grant_as_it_was_looked_at() -> None:
    """Not where it or what the operator allows has changed, where somebody wants it, nor where one failed."""
    bench = Bench()
    seen = [bench.routine()]
    await bench.check()
    seen += [bench.routine(), bench.routine(owner="somebody")]
    bench.verifier.want(KEY.client)
    wanted = bench.routine()
    bench.clock.pass_(1)
    await bench.check()
    after = bench.routine()
    bench.limits = NamespaceLimits(strong_accounts=True)

    assert seen == [False, True, False]
    assert (wanted, after, bench.routine()) == (False, True, False)
    assert list(bench.verifier._namespaces) == [KEY.client.namespace]


async def test_what_changed_is_looked_at_however_many_copies_are_due() -> None:
    """As what the operator allows since."""
    bench = Bench()
    bench.rush.late = lambda: 60.0
    await bench.check()
    changed = bench.wait(owner="somebody")
    bench.limits = NamespaceLimits(strong_accounts=True)

    assert changed == bench.wait() == 0


async def test_what_was_not_looked_at_as_it_is_does_not_wait() -> None:
    """A new client, a changed one, a changed limit, and one that failed: while others wait."""
    bench = Bench()
    other = client(grants=(grant(expect=Expect((), ("get secrets",))),), id=replace(KEY.client, name="other"))
    before = bench.verifier.wait(other, other.grants)
    await bench.check()
    while not bench.wait():
        pass
    changed, again = bench.wait(owner="somebody"), bench.wait()
    bench.limits = NamespaceLimits(strong_accounts=True)
    limited = bench.wait()

    assert (before, changed, limited) == (0, 0, 0)
    assert again > 0


async def test_what_was_found_wrong_does_not_wait_for_its_turn() -> None:
    """Nor does a look that failed: its delay grows by itself."""
    bench = Bench()
    await bench.check(deny=("list secrets",))
    while not bench.wait(deny=("list secrets",)):
        pass
    bench.wait(deny=("list secrets",))
    bench.reviews.held = Rules((replace(SECRETS, verbs=("list",)),))
    await bench.refusal(deny=("list secrets",))

    assert [bench.wait(deny=("list secrets",)) for _ in range(3)] == [0, 0, 0]


async def test_a_client_that_went_waits_for_nothing_when_it_comes_back() -> None:
    """What it took is forgotten with it."""
    bench = Bench()
    await bench.check()
    while not bench.wait():
        pass
    bench.verifier.forget(KEY.client)

    assert bench.wait() == 0


async def test_no_namespace_waits_for_another() -> None:
    """However many questions are asked about the accounts of one, a look at those of others has its turn at once."""
    bench = Bench()
    others = client(id=replace(KEY.client, namespace="other"))
    token = MintedToken(Sensitive("the-token"), "jti", bench.clock.now(), bench.clock.now(), "sha", account_uid="u-1")
    await bench.check()
    bench.reviews.namespaces.add("other")
    await bench.verifier.check(others, others.grants[0], token)
    for _ in range(3):
        while not bench.wait():
            pass

    assert [bench.verifier.wait(others, others.grants) for _ in range(BURST)] == [0] * BURST
    assert bench.verifier.wait(others, others.grants) > 0


async def test_a_namespace_is_forgotten_with_its_last_client() -> None:
    """Not with another one of it, and never twice."""
    bench = Bench()
    another = client(id=replace(KEY.client, name="another"))
    await bench.check()
    bench.verifier.wait(another, another.grants)
    while not bench.wait():
        pass
    bench.verifier.forget(another.id)
    await bench.check()
    still = max(bench.wait(), bench.wait())
    for _ in range(2):
        bench.verifier.forget(KEY.client)
    await bench.check()

    assert still > 0
    assert bench.wait() == 0
    assert len(bench.verifier._namespaces) == 1


async def test_rules_that_are_too_many_are_no_pass() -> None:
    """Where strong accounts are allowed, too: whatever the authorizer says about what is denied."""
    bench = Bench(strong_accounts=True)
    bench.reviews.held = unread_review(1024**2)
    facts = await bench.check(deny=("get configmaps",))
    bench.limits = NamespaceLimits()
    error = await bench.refusal(deny=("get configmaps",))

    assert (facts.strong, facts.certain) == (True, False)
    assert "there are rules of more than 1 MiB, and any may name an object" in facts.doubts[0]
    assert "it may do what rules of more than 1 MiB say" in error.operator_detail
