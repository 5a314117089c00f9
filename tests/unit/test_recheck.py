"""How often an account is looked at: seldom, spread, and a few at a time."""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from broker.metrics.counted import Metrics
from broker.model.client import Client, ClientId, Grant
from broker.model.former_grants import ListedAnchor
from broker.model.prepared import Prepared
from broker.model.proof_policy import ProofPolicy
from broker.model.status import AccessFacts
from broker.model.token import Anchor
from broker.ports import Registration
from broker.services.anchored import AnchoredGrants
from broker.services.bit_by_bit import FEW
from broker.services.board import StatusBoard
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook
from broker.services.reconcile import Reconciler
from broker.services.rush import Rush
from broker.services.token_anchors import TokenAnchors
from tests.support.rotation import FakeCluster, FakeRegistry, HandClock, NoAudit, Power, client, grant


class Preparing:
    """Stands for the preparer: counts how many grants are looked at together, and holds them while it is told to."""

    def __init__(self) -> None:
        self.now, self.most, self.looked = 0, 0, 0
        self.waiting = 0.0
        self.gate = asyncio.Event()
        self.forgotten: list[ClientId] = []
        self.wanted: list[ClientId] = []
        self.order: list[str] = []

    async def prepare(self, client: Client, grant: Grant, listed: ListedAnchor | None) -> AccessFacts:
        """Look at one."""
        assert grant in client.grants
        assert listed is None
        self.now += 1
        self.looked += 1
        self.order.append(grant.name)
        self.most = max(self.most, self.now)
        await self.gate.wait()
        self.now -= 1
        return AccessFacts()

    def take_over(self, client: Client, grant: Grant, listed: ListedAnchor | None) -> None:
        """Take no word of a leader before, for there is none."""
        assert grant in client.grants
        assert listed is None

    def wait(self, client: Client) -> float:
        """Return how long looks have to wait."""
        assert client.grants
        return self.waiting

    def want(self, client_id: ClientId) -> None:
        """Note whose look is wanted."""
        self.wanted.append(client_id)

    def keep(self, client: Client) -> None:
        """Remember nothing anyway."""

    async def forbid(self, client: Client) -> None:
        """Forbid nothing."""

    def forget(self, client_id: ClientId) -> None:
        """Note a client that may have nothing."""
        self.forgotten.append(client_id)


class Finalizing:
    """Implements Finalizers."""

    async def put(self, registration: Registration) -> Registration:
        """Do nothing."""
        return registration

    async def release(self, registration: Registration) -> None:
        """Never called here."""
        raise AssertionError(registration)


class Unread:
    """Implements StatusWriter: nobody reads what is written."""

    async def write(self, registration: Registration, status: Mapping[str, Any]) -> bool:
        """Keep nothing."""
        del registration, status
        return True


class Bench:
    """A reconciler among fakes."""

    def __init__(self) -> None:
        nobody: Any = None
        self.registry, self.clock, self.preparing = FakeRegistry(), HandClock(), Preparing()
        self.anchored, self.book = AnchoredGrants(), GrantBook()
        preparer: Any = self.preparing
        cluster = FakeCluster(Power(), self.clock)
        self.reconciler = Reconciler(
            registry=self.registry,
            preparer=preparer,
            ender=Ender(
                cluster,
                NoAudit(),
                self.clock,
                Metrics(),
                lambda: "request",
                anchored=self.anchored,
                leader=cluster,
            ),
            finalizers=Finalizing(),
            book=self.book,
            tokens=TokenAnchors(cluster, self.clock),
            board=StatusBoard(
                registry=self.registry,
                writer=Unread(),
                events=nobody,
                clock=self.clock,
                metrics=Metrics(),
                proofs=lambda _namespace: ProofPolicy(),
                leader=cluster,
                rush=Rush(self.clock),
            ),
            leader=cluster,
            clock=self.clock,
            prepared=lambda _client, _grant: None,
            anchored=self.anchored,
        )

    def put(self, number: int, **changes: Any) -> ClientId:
        """Register a client."""
        key = ClientId("shop", f"client-{number}")
        self.registry.put(replace(client(), id=key, **changes))
        return key


async def test_clients_are_looked_at_again_after_five_to_ten_minutes_each_at_its_own_time() -> None:
    """Always the same for the same client, so that a restart does not gather them."""
    bench = Bench()
    bench.preparing.gate.set()
    keys = [bench.put(number) for number in range(200)]
    first = [await bench.reconciler.visit(key) for key in keys]
    second = [await bench.reconciler.visit(key) for key in keys]
    known = sorted(seconds for seconds in first if seconds is not None)

    assert first == second
    assert len(known) == 200
    assert 300 <= known[0] < 315
    assert 585 < known[-1] <= 600
    assert max(later - earlier for earlier, later in itertools.pairwise(known)) < 20


async def turn() -> None:
    """Let the loop turn until nothing is left to do that needs no waiting."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_eight_clients_are_looked_at_at_a_time() -> None:
    """However many come at once."""
    bench = Bench()
    for number in range(50):
        bench.reconciler.changed(bench.put(number))
    task = asyncio.create_task(bench.reconciler.queue.run())
    await turn()
    assert bench.preparing.now == 8
    bench.preparing.gate.set()
    await turn()
    assert bench.preparing.looked == 50
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert bench.preparing.most == 8


async def test_requests_that_are_refused_have_a_client_looked_at_now_and_then() -> None:
    """However many there are: a client that keeps asking costs the API server no more than one that waits."""
    bench = Bench()
    bench.preparing.gate.set()
    key = bench.put(1)
    await bench.reconciler.visit(key)
    planned: list[float] = []
    bench.reconciler.queue.add = lambda _key, delay=0.0: planned.append(delay)  # type: ignore[assignment, method-assign, misc]
    for _ in range(3):
        bench.reconciler.recheck(key)
        bench.clock.pass_(2)
    bench.reconciler.recheck(key)

    assert planned == [5, 3, 1, 0]
    assert set(bench.preparing.wanted) == {key}


async def test_what_is_waited_for_is_looked_at_before_what_works() -> None:
    """A grant that was added serves nobody before: looks at the others are no news, and each may stand back."""
    bench = Bench()
    bench.preparing.gate.set()
    grants = tuple(grant(name=name) for name in ("works", "added", "works-too", "broken"))
    key = bench.put(1, grants=grants)
    for works in (grants[0], grants[2]):
        bench.book.put(replace(client(), id=key), Prepared(works, Anchor("name", "uid"), "account"))
    await bench.reconciler.visit(key)

    assert bench.preparing.order == ["added", "broken", "works", "works-too"]


async def test_a_new_leader_takes_everybody_in_bit_by_bit() -> None:
    """So that callers wait for a few of them at most, in a broker that has ten thousand."""
    bench = Bench()
    keys = [bench.put(number) for number in range(FEW + 1)]
    for key in keys:
        bench.reconciler.changed(key)
        bench.reconciler.queue.forget(key)
    bench.reconciler.lead()
    at_once = len(bench.reconciler.queue)
    await asyncio.sleep(0)

    assert (at_once, len(bench.reconciler.queue)) == (FEW, FEW + 1)


async def test_slow_visits_hold_up_no_suspension() -> None:
    """Neither those of others, which hold all workers, nor its own."""
    bench = Bench()
    keys = [bench.put(number) for number in range(9)]
    for key in keys[:8]:
        bench.reconciler.changed(key)
    task = asyncio.create_task(bench.reconciler.queue.run())
    await turn()
    assert bench.preparing.now == 8
    for number in (0, 8):
        bench.put(number, suspended=True, generation=2)
        bench.reconciler.changed(keys[number])
    await turn()
    stopped = list(bench.preparing.forgotten)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert sorted(stopped) == sorted([keys[0], keys[8]])


async def test_a_client_whose_turn_is_later_is_visited_then() -> None:
    """Without holding a worker meanwhile; a grant that is not ready waits for nothing, and hastens no other one."""
    bench = Bench()
    bench.preparing.gate.set()
    bench.preparing.waiting = 7.0
    ready, broken = grant(), grant(name="broken")
    key = bench.put(1, grants=(ready, broken))
    waits = [await bench.reconciler.visit(key)]
    bench.book.put(replace(client(), id=key), Prepared(ready, Anchor("name", "uid"), "account"))
    waits.append(await bench.reconciler.visit(key))
    first = bench.preparing.looked
    bench.preparing.waiting = 0.0
    await bench.reconciler.visit(key)

    assert waits == [7.0, 7.0]
    assert (first, bench.preparing.looked) == (2 + 1, 2 + 1 + 2)
