"""What the reconciler leaves behind of a client that went: nothing."""

from typing import Any

import pytest

from broker.clock import SystemClock
from broker.errors import BrokerError, Reason
from broker.metrics import Metrics
from broker.model.proof_policy import ProofPolicy
from broker.services.anchor_book import AnchorBook
from broker.services.board import StatusBoard
from broker.services.reconcile import Reconciler
from tests.support.rotation import KEY, RULES, FakeCluster, FakeRegistry, HandClock, Power, client, grant


class Bench:
    """A reconciler among fakes."""

    def __init__(self) -> None:
        nobody: Any = None
        self.registry = FakeRegistry()
        self.cluster = FakeCluster(Power(), HandClock())
        self.book = AnchorBook()
        board = StatusBoard(
            registry=self.registry,
            writer=nobody,
            events=nobody,
            clock=SystemClock(),
            metrics=Metrics(),
            proofs=ProofPolicy(),
        )
        self.reconciler = Reconciler(
            registry=self.registry,
            anchors=self.cluster,
            minter=self.cluster,
            book=self.book,
            board=board,
            rules=RULES,
        )

    async def visit(self) -> None:
        """Let it look at the client."""
        await self.reconciler.visit(KEY.client)


@pytest.fixture
async def bench() -> Bench:
    """Return one that has prepared a client of two grants."""
    prepared = Bench()
    prepared.registry.put(client(grants=(grant(), grant(name="other"))))
    await prepared.visit()
    assert len(prepared.cluster.anchors) == 2
    return prepared


async def test_anchors_of_a_client_that_went_are_deleted(bench: Bench) -> None:
    """All of them, also that of a grant that it had before: nobody else does it for a client from a file."""
    bench.registry.put(client(generation=2))
    await bench.visit()
    del bench.registry.known[KEY.client]
    await bench.visit()

    assert bench.cluster.anchors == {}
    assert bench.book.of(KEY.client) == []


async def test_anchors_of_a_client_that_was_invalid_before_it_went_are_deleted(bench: Bench) -> None:
    """A broken file is often mended by taking it away."""
    bench.registry.invalidate(KEY.client)
    await bench.visit()
    assert len(bench.cluster.anchors) == 2
    del bench.registry.known[KEY.client]
    await bench.visit()

    assert bench.cluster.anchors == {}


async def test_anchors_are_not_forgotten_before_they_are_gone(bench: Bench) -> None:
    """An API server that is away is asked again."""
    del bench.registry.known[KEY.client]
    bench.cluster.delete_fault = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
    with pytest.raises(BrokerError):
        await bench.visit()
    bench.cluster.delete_fault = None
    await bench.visit()

    assert bench.cluster.anchors == {}
