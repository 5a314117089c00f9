"""How many tokens a client is handed out: its own rate within the operator's, counted when one is."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin
from broker.model.client import ClientId
from broker.model.decision import Ask, Rules
from broker.model.limits import NamespaceLimits
from broker.model.proof import ProvedBy
from broker.model.rate import Rate, effective
from broker.model.token import MintedToken
from broker.services.deliver import Deliverer
from broker.services.issue import Issuer
from broker.services.mint import Issued
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.gate import Bounds, Gate
from tests.support.rotation import HandClock, client

ORIGIN = Origin("request", "127.0.0.1", ProvedBy("clientSecret", ""))
AUDIENCE = "https://kubernetes.default.svc"


class Counter:
    """A client with a rate, in a namespace with the operator's."""

    def __init__(self, own: Rate | None, bound: Rate | None = None) -> None:
        self.clock, self.bound = HandClock(), bound
        self.client = replace(client(), rate=own)
        self.rules = Rules("tokenbroker", AUDIENCE, limits=lambda _namespace: NamespaceLimits(rate=self.bound))
        self.rates = ClientRates(self.rules, self.clock)

    def taken(self, most: int = 1000) -> int:
        """Return how many tokens there are now, and take them."""
        for number in range(most):
            try:
                self.rates.take(self.client)
            except BrokerError:
                return number
        return most

    def wait(self) -> int | None:
        """Return what is told to somebody who asks for one more."""
        with pytest.raises(BrokerError) as refused:
            self.rates.take(self.client)
        assert refused.value.reason is Reason.RATE_LIMITED
        return refused.value.retry_after


@pytest.mark.parametrize(
    ("own", "bound", "holds"),
    [
        (None, None, None),
        (Rate(60, 10), None, Rate(60, 10)),
        (None, Rate(600, 100), Rate(600, 100)),
        (Rate(60, 10), Rate(600, 100), Rate(60, 10)),
        (Rate(6000, 10), Rate(600, 100), Rate(600, 10)),
        (Rate(60, 1000), Rate(600, 100), Rate(60, 100)),
    ],
)
def test_the_smaller_of_both_numbers_holds(own: Rate | None, bound: Rate | None, holds: Rate | None) -> None:
    """Nobody gets more by writing a TokenClient; who writes none has the operator's."""
    assert effective(own, bound) == holds


def test_a_burst_is_there_at_once_and_more_as_time_passes() -> None:
    """Never more than the burst, however long nobody asked."""
    counter = Counter(Rate(60, 10))
    first = counter.taken()
    counter.clock.pass_(3.5)
    later = counter.taken()
    counter.clock.pass_(3600)

    assert (first, later, counter.taken()) == (10, 3, 10)


@pytest.mark.parametrize(("per_minute", "seconds"), [(1, 60), (7, 9), (60, 1), (600, 1), (100_000, 1)])
def test_one_more_is_there_when_it_was_said_to_be(per_minute: int, seconds: int) -> None:
    """In whole seconds, as RFC 9110, 10.2.3 has it, and not before the second ahead of that."""
    counter = Counter(Rate(per_minute, 1))
    counter.taken(1)
    told = counter.wait()
    counter.clock.pass_(seconds - 1)
    early = counter.taken(1)
    counter.clock.pass_(1)

    assert told == seconds
    assert (early, counter.taken(1)) == (0, 1)


def test_no_rate_is_no_limit_and_takes_no_memory() -> None:
    """Nothing is remembered of clients that have none."""
    counter = Counter(None)

    assert counter.taken(1000) == 1000
    assert counter.rates._levels == {}


def test_refusals_take_nothing() -> None:
    """Who asks all the time is handed out as much as who waits."""
    counter = Counter(Rate(60, 1))
    counter.taken()
    for _ in range(9):
        counter.clock.pass_(0.1)
        counter.wait()
    counter.clock.pass_(0.1)

    assert counter.taken() == 1


def test_a_changed_rate_holds_at_once() -> None:
    """A smaller burst for what is left, a faster rate for what comes; the operator's, too."""
    counter = Counter(Rate(60, 100))
    counter.client = replace(counter.client, rate=Rate(60, 5))
    smaller = counter.taken()
    counter.client = replace(counter.client, rate=Rate(6000, 5))
    counter.clock.pass_(0.025)
    faster = counter.taken()
    counter.bound = Rate(60, 1)
    counter.clock.pass_(100)
    bounded = counter.taken()
    counter.client, counter.bound = replace(counter.client, rate=None), None

    assert (smaller, faster, bounded, counter.taken(50)) == (5, 2, 1, 50)


def test_clients_do_not_share() -> None:
    """And one that went is forgotten: if it comes again, it begins anew."""
    counter = Counter(Rate(60, 3))
    mine = counter.taken()
    mine_id, counter.client = counter.client.id, replace(counter.client, id=ClientId("shop", "other"))
    others = counter.taken()
    counter.rates.forget(mine_id)
    known = set(counter.rates._levels)
    counter.client = replace(counter.client, id=mine_id)

    assert (mine, others, counter.taken()) == (3, 3, 3)
    assert known == {ClientId("shop", "other")}


def test_what_would_be_refused_is_told_without_taking() -> None:
    """As a dry run does."""
    counter = Counter(Rate(60, 1))
    before = [counter.rates.fault(counter.client) for _ in range(5)]
    counter.taken()
    fault = counter.rates.fault(counter.client)

    assert before == [None] * 5
    assert fault is not None
    assert (fault.reason, fault.retry_after) == (Reason.RATE_LIMITED, 1)


class Desk:
    """An issuer and a deliverer whose minting and writing succeed, or fail, as they are told to."""

    def __init__(self) -> None:
        self.counter = Counter(Rate(60, 3))
        self.fault: BrokerError | None = None
        self.minted = 0
        metrics: Any = self
        self.issuer = Issuer(
            minter=self,
            shared=metrics,
            rates=self.counter.rates,
            audit=metrics,
            metrics=metrics,
            clock=self.counter.clock,
            rules=self.counter.rules,
        )
        rotator: Any = self
        self.deliverer = Deliverer(
            rotator=rotator,
            issuer=self.issuer,
            gate=Gate(Bounds(8, 8, 8, 1.0), self.counter.clock, metrics),
            rates=self.counter.rates,
            rules=self.counter.rules,
            clock=self.counter.clock,
        )

    async def mint(self, *_: Any) -> Issued:
        """Stand in for the minter."""
        if self.fault is not None:
            raise self.fault
        self.minted += 1
        token: Any = MintedToken(*[datetime(2026, 1, 1, tzinfo=UTC)] * 6)  # type: ignore[arg-type] # nobody looks
        allowed: Any = _Allowed(self.counter.client.grants[0])
        return Issued("id", token, allowed, "shop", "subject")

    async def deliver(self, *_: Any) -> None:
        """Stand in for the rotator."""
        if self.fault is not None:
            raise self.fault
        self.minted += 1

    def abandon(self, *_: Any) -> None:
        """Stand in for the minter."""

    refused = issued = abandon

    async def ask(self, *, delivery: bool, grant: str | None = None) -> Reason | None:
        """Ask for a token and return why there is none."""
        who, ask = self.counter.client, Ask(grant)
        try:
            if delivery:
                await self.deliverer.deliver(who, ask, ORIGIN)
            else:
                await self.issuer.issue(who, ask, ORIGIN)
        except BrokerError as error:
            return error.reason
        return None


class _Allowed:
    """As much of a decision as the audit record needs."""

    def __init__(self, grant: Any) -> None:
        self.grant, self.audience, self.ttl_seconds = grant, AUDIENCE, 900


@pytest.mark.parametrize("delivery", [False, True], ids=["response", "vault"])
async def test_what_is_handed_out_counts(*, delivery: bool) -> None:
    """In a response, or into Vault; beyond the rate nothing is minted."""
    desk = Desk()
    said = [await desk.ask(delivery=delivery) for _ in range(4)]

    assert said == [None, None, None, Reason.RATE_LIMITED]
    assert desk.minted == 3


@pytest.mark.parametrize("delivery", [False, True], ids=["response", "vault"])
async def test_what_fails_does_not_count(*, delivery: bool) -> None:
    """Neither a neighbour's failure nor a refusal takes from what a client may have."""
    desk = Desk()
    desk.fault = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "")
    failed = [await desk.ask(delivery=delivery) for _ in range(5)]
    desk.fault = None
    denied = [await desk.ask(delivery=delivery, grant="unknown") for _ in range(5)]

    assert failed == [Reason.KUBERNETES_UNAVAILABLE] * 5
    assert denied == [Reason.GRANT_UNKNOWN] * 5
    assert [await desk.ask(delivery=delivery) for _ in range(4)] == [None, None, None, Reason.RATE_LIMITED]


async def test_who_is_suspended_hears_of_that_first() -> None:
    """And uses nothing up."""
    desk = Desk()
    desk.counter.client = replace(desk.counter.client, suspended=True)
    while_suspended = [await desk.ask(delivery=False) for _ in range(5)]
    desk.counter.client = replace(desk.counter.client, suspended=False)

    assert while_suspended == [Reason.CLIENT_SUSPENDED] * 5
    assert desk.counter.taken() == 3
