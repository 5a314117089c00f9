"""Who may make ServiceAccount tokens by the thousand, and is no client, makes nobody else wait."""

import asyncio

import pytest

from broker.errors import BrokerError
from broker.model.client import ClientId
from broker.model.sensitive import Sensitive
from broker.ports import LiveToken, Reviewed
from broker.services.storms.gate import Bounds
from broker.services.storms.gated import GatedReviewer
from tests.support.gates import a_gate
from tests.support.rotation import HandClock

URL = "https://broker.example"
BOUNDS = Bounds(concurrency=2, waiting=50, waiting_each=40, wait_seconds=60)


class SlowReviews:
    """An API server that reviews when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Semaphore(0)

    async def review(self, token: str, audience: str) -> Reviewed | None:
        """Say no, in time."""
        assert audience == URL
        self.asked.append(token)
        await self.go_on.acquire()
        return None

    async def inspect(self, token: Sensitive) -> LiveToken | None:
        """Never called."""
        raise AssertionError(token)


async def test_many_tokens_of_a_namespace_are_no_many_flows() -> None:
    """A client, and an account of another namespace, are served next though a hundred tokens came before."""
    reviews, gate = SlowReviews(), a_gate(HandClock(), BOUNDS)
    gated = GatedReviewer(reviews, gate)
    storm = [asyncio.create_task(gated.review(f"stranger-{n}", URL, "strangers")) for n in range(100)]
    await asyncio.sleep(0)

    async def mint() -> None:
        async with gate.turn(ClientId("shop", "web")):
            reviews.asked.append("mint")

    other = asyncio.create_task(gated.review("runner", URL, "ci"))
    client = asyncio.create_task(mint())
    for _ in range(4):
        reviews.go_on.release()
        for _ in range(5):
            await asyncio.sleep(0)

    assert client.done()
    assert client.exception() is None
    assert "runner" in reviews.asked
    assert len(reviews.asked) <= 8, "others are not served in turn"
    for task in (*storm, other):
        task.cancel()
    told = await asyncio.gather(*storm, return_exceptions=True)
    assert sum(isinstance(one, BrokerError) for one in told) == 100 - BOUNDS.concurrency - BOUNDS.waiting_each


async def test_reviews_of_a_namespace_are_no_flow_of_its_clients() -> None:
    """Clients there have their own turns."""
    namespace = "shop"
    reviews, gate = SlowReviews(), a_gate(HandClock(), BOUNDS)
    gated = GatedReviewer(reviews, gate)
    storm = [asyncio.create_task(gated.review(f"{n}", URL, namespace)) for n in range(BOUNDS.waiting_each + 2)]
    await asyncio.sleep(0)

    with pytest.raises(BrokerError, match="overloaded"):
        await gated.review("one more", URL, namespace)
    turn = asyncio.create_task(gate.enter(ClientId("shop", "web")))
    for _ in range(2):
        reviews.go_on.release()
        for _ in range(5):
            await asyncio.sleep(0)

    assert turn.done()
    for task in storm:
        task.cancel()
    await asyncio.gather(*storm, return_exceptions=True)
