"""What operators see of what was found out about accounts: conditions, the mark of strong ones, and Events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.metrics.counted import Metrics
from broker.model.client import Expect, Proofs
from broker.model.former_grants import ListedAnchor, former_grant, listed_anchor
from broker.model.prepared import Prepared
from broker.model.proof_policy import ProofPolicy
from broker.model.status import AccessFacts, camel
from broker.model.token import Anchor
from broker.model.vault_status import VaultFacts
from broker.ports import Registration
from broker.services.board import RECHECK_SECONDS, StatusBoard
from broker.services.ending import NotEnded
from broker.services.event_notes import EVENT_NOTES
from broker.services.overtaken import AGAIN_SECONDS, LONGEST_SECONDS
from broker.services.rush import Rush
from broker.services.workqueue import Lane
from tests.support.rotation import KEY, FakeCluster, FakeRegistry, HandClock, Power, client, grant

STRONG = Fault(Reason.ACCOUNT_TOO_STRONG, "strong")
BROKEN = Fault(Reason.ACCESS_NOT_AS_DECLARED, "deny 'get pods' does not hold")
AWAY = Fault(Reason.KUBERNETES_UNAVAILABLE, "away")
FORBIDDEN = BrokerError(Reason.BROKER_NOT_AUTHORIZED, "", operator_detail="no Role")
EXPECTING = grant(vault=None, expect=Expect(deny=("get pods",)))


@dataclass
class Shown:
    """Implements StatusWriter and EventRecorder: keeps what was written and told. ``version`` is the resource's."""

    registry: FakeRegistry
    status: Mapping[str, Any] = field(default_factory=dict)
    events: list[tuple[str, bool]] = field(default_factory=list)
    failure: BrokerError | None = None
    version: str = ""
    asked: int = 0
    meanwhile: Callable[[], None] = lambda: None

    async def write(self, registration: Registration, status: Mapping[str, Any]) -> bool:
        """Keep a status, unless the resource has changed since it was seen."""
        assert registration.id == KEY.client
        self.asked += 1
        self.meanwhile()
        if self.failure is not None:
            raise self.failure
        if registration.resource_version != self.version:
            return False
        self.status = status
        return True

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """Keep an Event."""
        assert registration.id == KEY.client
        assert note == EVENT_NOTES[event_reason]
        self.events.append((event_reason, warning))


class Bench:
    """A board among fakes, and a client with one grant."""

    def __init__(self, policy: ProofPolicy | None = None, **grants: Any) -> None:
        self.registry = FakeRegistry()
        self.registry.put(client(grants=(EXPECTING,)) if not grants else client(**grants))
        self.shown = Shown(self.registry)
        self.leader, self.metrics = FakeCluster(Power(), HandClock()), Metrics()
        self.clock = HandClock()
        self.rush = Rush(self.clock)
        self.board = StatusBoard(
            registry=self.registry,
            writer=self.shown,
            events=self.shown,
            clock=self.clock,
            metrics=self.metrics,
            proofs=lambda _namespace: policy or ProofPolicy(),
            leader=self.leader,
            rush=self.rush,
        )

    async def tried(self, fault: Fault | None, access: AccessFacts | None = None) -> None:
        """Note how a trial went, and write."""
        self.board.rehearsed(KEY.client, "default", fault, access)
        await self.board.write(KEY.client)

    def sees(self, version: str, **changes: Any) -> None:
        """Let the watch bring another version of the resource."""
        known = self.registry.known[KEY.client]
        self.registry.known[KEY.client] = replace(known, resource_version=version, **changes)
        self.board.changed(KEY.client)

    def condition(self, kind: str) -> tuple[str, str] | None:
        """Return status and reason of a condition, or None where there is none."""
        found = [one for one in self.shown.status["conditions"] if one["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else None

    @property
    def gauge(self) -> float | None:
        """What is told of the client; None where nothing is."""
        labels = {"namespace": KEY.client.namespace, "client": KEY.client.name}
        return self.metrics.registry.get_sample_value("tokenbroker_client_ready", labels)

    @property
    def not_true(self) -> set[tuple[str, str]]:
        """The conditions that the metrics show, and their reasons."""
        samples = [sample for it in self.metrics.registry.collect() for sample in it.samples]
        shown = [sample.labels for sample in samples if sample.name == "tokenbroker_client_condition"]
        return {(labels["type"], labels["reason"]) for labels in shown}

    @property
    def strong(self) -> bool | None:
        """What the status says of the account."""
        grants: list[dict[str, Any]] = self.shown.status["grants"]
        strong: bool | None = grants[0].get("strong")
        return strong


@pytest.mark.parametrize("strong", [True, False])
async def test_account_that_passed_is_shown_as_it_is(*, strong: bool) -> None:
    """Verified, and strong where it is."""
    bench = Bench()
    await bench.tried(None, AccessFacts(strong=strong))

    assert bench.condition("AccessVerified") == ("True", "Verified")
    assert bench.strong is strong


async def test_account_that_was_refused_as_strong_is_shown_as_strong() -> None:
    """Also one that was not when it was looked at before; its expectations were not looked at."""
    bench = Bench()
    await bench.tried(None, AccessFacts())
    before = bench.strong
    await bench.tried(STRONG)

    assert (before, bench.strong) == (False, True)
    assert bench.condition("Ready") == ("False", "AccountTooStrong")
    assert bench.condition("AccessVerified") == ("Unknown", "Pending")


async def test_nothing_is_said_of_an_account_that_nobody_could_look_at() -> None:
    """Neither strong nor weak."""
    bench = Bench()
    await bench.tried(AWAY)

    assert bench.strong is None
    assert bench.condition("AccessVerified") == ("Unknown", "Pending")


async def test_what_was_verified_before_a_finding_counts_no_more() -> None:
    """An API server that is away then does not turn the condition to True again."""
    bench = Bench()
    await bench.tried(None, AccessFacts())
    await bench.tried(AWAY)
    kept = bench.condition("AccessVerified")
    await bench.tried(BROKEN)
    broken = bench.condition("AccessVerified")
    await bench.tried(AWAY)

    assert kept == ("True", "Verified")
    assert broken == ("False", "AccessNotAsDeclared")
    assert bench.condition("AccessVerified") == ("Unknown", "Pending")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (AccessFacts(doubts=("x.",)), ("False", "AccessMissing")),
        (AccessFacts(certain=False, doubts=("x.",)), ("Unknown", "RulesIncomplete")),
    ],
)
async def test_doubt_is_no_pass_and_stops_nothing(facts: AccessFacts, said: tuple[str, str]) -> None:
    """Ready stays True; a warning is told."""
    bench = Bench()
    await bench.tried(None, facts)

    assert bench.condition("AccessVerified") == said
    assert bench.condition("Ready") == ("True", "Ready")
    assert bench.shown.events == [("Ready", False), (said[1], True)]


async def test_grant_that_expects_nothing_has_no_such_condition() -> None:
    """Nobody asked."""
    bench = Bench(grants=(grant(vault=None),))
    await bench.tried(None, AccessFacts())

    assert bench.condition("AccessVerified") is None


@pytest.mark.parametrize("fault", [STRONG, BROKEN], ids=lambda fault: camel(fault.reason))
async def test_finding_is_told_once(fault: Fault) -> None:
    """Ready and AccessVerified say the same, and each look says it again: it is one Event until that changes."""
    bench = Bench()
    await bench.tried(None, AccessFacts())
    bench.shown.events.clear()
    for _ in range(3):
        await bench.tried(fault)
    found = list(bench.shown.events)
    await bench.tried(None, AccessFacts())

    assert found == [(camel(fault.reason), True)]
    assert bench.shown.events[1:] == [("Ready", False), ("Verified", False)]


async def test_proof_that_does_not_count_is_told_once() -> None:
    """Where it is the only one, Ready says it, too."""
    only_oidc = ProofPolicy(kinds=frozenset({"oidc"}))
    bench = Bench(only_oidc, grants=(grant(vault=None),), proofs=Proofs((b"0" * 32,)))
    await bench.tried(None, AccessFacts())

    assert bench.condition("Ready") == bench.condition("ProofsAccepted") == ("False", "ProofNotAccepted")
    assert bench.not_true == {("Ready", "ProofNotAccepted"), ("ProofsAccepted", "ProofNotAccepted")}
    assert bench.shown.events == [("ProofNotAccepted", True)]


async def test_only_the_leader_writes_and_tells() -> None:
    """Another replica has looked at no account: it would take back what the leader says."""
    bench = Bench()
    bench.leader.leading = False
    await bench.tried(None)
    followed = dict(bench.shown.status), list(bench.shown.events), bench.gauge
    bench.leader.leading = True
    await bench.tried(None, AccessFacts())

    assert followed == ({}, [], None)
    assert bench.gauge == 1.0
    assert bench.condition("AccessVerified") == ("True", "Verified")


async def test_a_new_leader_takes_nothing_back_before_it_has_looked() -> None:
    """What the one before has said stands until then, and is not told again as if it had changed."""
    bench = Bench()
    await bench.tried(None, AccessFacts())
    said = bench.shown.status
    follower = Bench()
    follower.registry.known[KEY.client] = replace(follower.registry.known[KEY.client], status=said)
    follower.board.start_over()
    await follower.board.write(KEY.client)
    written = dict(follower.shown.status)
    await follower.tried(None, AccessFacts())

    assert written == {}
    assert (follower.shown.status, follower.shown.events) == ({}, [])


async def test_who_leads_no_more_tells_nothing_of_clients() -> None:
    """Copies in Vault that it knew of are renewed by another one: they must not seem to expire."""
    bench = Bench(grants=(grant(),))
    await bench.tried(None, AccessFacts())
    bench.board.vault(KEY.client, "default", VaultFacts("p", 1, HandClock().now(), None, 0, None))
    await bench.board.write(KEY.client)
    expired = bench.gauge
    bench.leader.leading = False
    bench.board.start_over()
    await bench.board.write(KEY.client)
    told = bench.gauge
    bench.leader.leading = True
    bench.board.start_over()
    await bench.tried(None, AccessFacts())

    assert (expired, told) == (0.0, None)
    assert bench.condition("Ready") == ("True", "Ready")


async def test_the_status_names_by_what_replicas_may_mint() -> None:
    """Nothing where the grant may not be issued for, or its client is suspended."""
    bench = Bench()
    prepared = Prepared(EXPECTING, Anchor("name", "anchor-1"), "account-1")
    listed = []
    for fault, by in ((None, prepared), (AWAY, prepared), (BROKEN, None), (None, prepared)):
        bench.board.rehearsed(KEY.client, "default", fault, AccessFacts(), by)
        await bench.board.write(KEY.client)
        listed.append(listed_anchor(bench.shown.status, 1, EXPECTING))
    bench.registry.put(client(grants=(EXPECTING,), suspended=True))
    bench.board.withholding(KEY.client)
    bench.board.withheld(KEY.client, [])
    await bench.board.write(KEY.client)
    listed.append(listed_anchor(bench.shown.status, 1, EXPECTING))

    named = ListedAnchor("anchor-1", "account-1")
    assert listed == [named, named, ListedAnchor(), named, ListedAnchor()]


async def test_a_client_is_shown_as_suspended_when_its_tokens_have_ended() -> None:
    """Not while that is tried, nor where it could not be; a new leader says nothing before it has tried."""
    bench = Bench()
    await bench.tried(None, AccessFacts())
    bench.registry.put(client(grants=(EXPECTING,), suspended=True))
    said = []
    bench.board.start_over()
    for note in (
        lambda: None,
        lambda: bench.board.withholding(KEY.client),
        lambda: bench.board.withheld(KEY.client, [NotEnded("uid-1", former_grant(EXPECTING), Fault.of(FORBIDDEN))]),
        lambda: bench.board.withholding(KEY.client),
        lambda: bench.board.withheld(KEY.client, []),
        lambda: bench.board.withholding(KEY.client),
    ):
        note()  # type: ignore[no-untyped-call]
        await bench.board.write(KEY.client)
        said.append(bench.condition("Ready"))

    trying, done = ("False", "Suspending"), ("False", "Suspended")
    assert said == [("True", "Ready"), trying, trying, trying, done, done]
    assert bench.shown.events[-1] == ("Suspended", True)


async def test_what_lives_yet_of_a_client_that_is_suspended_is_named() -> None:
    """The grant, and why: somebody has to do something about it."""
    bench = Bench()
    bench.registry.put(client(grants=(EXPECTING,), suspended=True))
    bench.board.withheld(KEY.client, [NotEnded("uid-1", former_grant(EXPECTING), Fault.of(FORBIDDEN))])
    await bench.board.write(KEY.client)
    message = bench.shown.status["conditions"][0]["message"]

    assert message == "Nothing is issued, and its tokens live yet: grant default: no Role"


@pytest.mark.parametrize(
    "reason",
    [
        Reason.ACCESS_NOT_AS_DECLARED,
        Reason.ACCOUNT_TOO_STRONG,
        Reason.LIMITS_EXCEEDED,
        Reason.POLICY_MISSING,
        Reason.GRANT_FORBIDDEN,
    ],
)
def test_what_stops_a_client_has_words_for_an_event(reason: Reason) -> None:
    """Fixed ones: nothing of the finding gets into them."""
    assert EVENT_NOTES[camel(reason)]


async def test_what_is_new_of_a_copy_is_written_at_once() -> None:
    """And what is not new is not."""
    bench = Bench(grants=(grant(),))
    facts = VaultFacts("p", 1, None, None, 0, None)
    for _ in range(2):
        bench.board.queue.forget(KEY.client)
        bench.board.vault(KEY.client, "default", facts)
        planned = len(bench.board.queue)
        facts = replace(facts)

    assert planned == 0
    bench.board.vault(KEY.client, "default", replace(facts, version=2))
    assert len(bench.board.queue) == 1


async def test_a_status_that_was_overtaken_is_written_over_what_came_in_between() -> None:
    """As soon as it is heard of; until then nothing is asked, and nothing is told twice, nor of as a failure."""
    bench = Bench()
    bench.shown.version = "2"
    await bench.tried(None, AccessFacts())
    waits = [await bench.board.write(KEY.client) for _ in range(3)]
    asked = bench.shown.asked
    bench.sees("2")
    planned = bench.board.queue._planned[Lane.NORMAL].first()
    await bench.board.write(KEY.client)

    assert asked == 1
    assert waits == [RECHECK_SECONDS] * 3
    assert planned is not None
    assert bench.shown.asked == 2
    assert bench.condition("Ready") == ("True", "Ready")
    assert bench.shown.events == [("Ready", False), ("Verified", False)]


async def test_a_status_is_overtaken_at_most_once_by_each_change() -> None:
    """However long somebody else goes on: no call more than changes."""
    bench = Bench()
    bench.shown.version = "never the same"
    await bench.tried(None, AccessFacts())
    for version in range(20):
        bench.sees(str(version))
        for _ in range(5):
            bench.board.vault(KEY.client, "default", None)
            await bench.board.write(KEY.client)

    assert bench.shown.asked == 21
    assert bench.shown.events == []


async def test_what_was_heard_of_while_a_status_was_overtaken_does_not_have_to_come_again() -> None:
    """The watch may be faster than the answer."""
    bench = Bench()
    bench.shown.version = "2"
    bench.shown.meanwhile = lambda: bench.sees("2")
    bench.board.rehearsed(KEY.client, "default", None, AccessFacts())
    wait = await bench.board.write(KEY.client)
    await bench.board.write(KEY.client)

    assert wait == AGAIN_SECONDS
    assert bench.condition("Ready") == ("True", "Ready")


async def test_a_status_that_was_overtaken_is_tried_again_though_nothing_is_heard() -> None:
    """After a minute."""
    bench = Bench()
    bench.shown.version = "2"
    await bench.tried(None, AccessFacts())
    bench.clock.pass_(LONGEST_SECONDS)
    await bench.board.write(KEY.client)

    assert bench.shown.asked == 2


async def test_what_an_earlier_leader_writes_late_is_corrected() -> None:
    """Where it came in before this one had anything to write: at the next look, a minute later."""
    earlier, now = Bench(), Bench()
    await earlier.tried(STRONG)
    await now.tried(None, AccessFacts())
    now.sees("1", status=now.shown.status)
    wait = await now.board.write(KEY.client)
    right = now.shown.status
    now.sees("2", status=earlier.shown.status)
    now.shown.version = "2"
    await now.board.write(KEY.client)

    assert wait == RECHECK_SECONDS
    assert (right["conditions"][0]["reason"], now.condition("Ready")) == ("Ready", ("True", "Ready"))
    assert now.shown.asked == 2


async def test_grants_are_listed_only_in_a_resource_that_is_as_it_was_seen() -> None:
    """Else nobody could find again what is made below them."""
    bench = Bench()
    bench.shown.version = "2"
    with pytest.raises(BrokerError, match="kubernetes_unavailable"):
        await bench.board.write_down(bench.registry.known[KEY.client])
    bench.sees("2")
    await bench.board.write_down(bench.registry.known[KEY.client])

    assert [one["name"] for one in bench.shown.status["grants"]] == ["default"]
