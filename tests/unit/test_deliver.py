"""Deliveries into Vault take turns: no client holds up those of others, and nobody waits for one who went."""

import asyncio
from typing import Any

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin
from broker.model.client import Client
from broker.model.decision import Allowed, Ask
from broker.services.deliver import Deliverer
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.gate import Bounds, Gate, caller
from tests.support.rotation import RULES, HandClock, client


class Slow:
    """Stands for the rotator, the issuer and metrics: each delivery lasts until a test ends it."""

    def __init__(self, bounds: Bounds) -> None:
        anything: Any = self
        clock = HandClock()
        self.over = asyncio.Semaphore(0)
        self.under_way = 0
        self.gate = Gate(bounds, clock, anything)
        self.deliverer = Deliverer(
            rotator=anything,
            issuer=anything,
            gate=self.gate,
            rates=ClientRates(RULES, clock),
            rules=RULES,
            clock=clock,
        )

    async def deliver(self, *_: object) -> str:
        """Write a version, in the end."""
        self.under_way += 1
        try:
            await self.over.acquire()
        finally:
            self.under_way -= 1
        return "written"

    def permitted(self, decision: Allowed) -> Allowed:
        """Permit what was decided."""
        return decision

    def note_refusal(self, *_: object) -> None:
        """Note nothing."""

    def shed(self, _why: object) -> None:
        """Count nothing."""

    def waited(self, _seconds: float) -> None:
        """Observe nothing."""

    async def ask(self, owner: Client, who: object = None) -> str:
        """Ask for a delivery, as a connection of a caller does."""
        caller.set(who)
        try:
            return str(await self.deliverer.deliver(owner, Ask(), Origin("r")))
        except BrokerError as error:
            return str(error.reason)


async def test_deliveries_of_one_client_are_bounded() -> None:
    """Some are made, some wait, and the rest is refused at once."""
    slow = Slow(Bounds(concurrency=2, waiting=10, waiting_each=3, wait_seconds=60))
    asked = [asyncio.create_task(slow.ask(client())) for _ in range(9)]
    done, _ = await asyncio.wait(asked, timeout=0.05)

    assert [task.result() for task in done] == [Reason.OVERLOADED] * 4
    assert (slow.under_way, slow.gate.waiting) == (2, 3)
    for _ in range(5):
        slow.over.release()
    assert sorted(await asyncio.gather(*asked)) == [Reason.OVERLOADED] * 4 + ["written"] * 5


async def test_nothing_is_delivered_for_who_hung_up_while_he_waited() -> None:
    """His request leaves the queue, and the next one comes sooner."""
    slow = Slow(Bounds(concurrency=1, waiting=10, waiting_each=10, wait_seconds=60))
    asked = [asyncio.create_task(slow.ask(client(), who)) for who in ("first", "gone", "last")]
    await asyncio.sleep(0.01)
    slow.gate.hung_up("gone")
    await asyncio.wait(asked, timeout=0.05)
    slow.over.release()
    slow.over.release()
    results = await asyncio.gather(*asked, return_exceptions=True)

    assert isinstance(results[1], asyncio.CancelledError)
    assert (results[0], results[2]) == ("written", "written")
    assert (slow.under_way, slow.gate.waiting) == (0, 0)
