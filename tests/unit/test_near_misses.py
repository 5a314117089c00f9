"""The owner of a client hears of near misses, and not of each one."""

import asyncio
from dataclasses import dataclass, field

import pytest

from broker.errors import ProofFailure
from broker.model.client import ClientId
from broker.ports import Registration
from broker.services import near_misses
from broker.services.event_notes import EVENT_NOTES
from broker.services.near_misses import EVENT_REASONS, NearMisses
from tests.support.rotation import FakeRegistry, client


@dataclass
class Events:
    """Keeps what is recorded."""

    recorded: list[tuple[ClientId, str, str, bool]] = field(default_factory=list)

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """Keep it."""
        self.recorded.append((registration.id, event_reason, note, warning))


async def test_one_event_of_a_kind_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; another kind has an Event of its own, and after the quiet the next one too."""
    monkeypatch.setattr(near_misses, "QUIET_SECONDS", 0.2)
    registry, events = FakeRegistry(), Events()
    registry.put(client())
    told = NearMisses(registry, events)
    running = asyncio.create_task(told.queue.run())
    for _ in range(50):
        told(client().id, ProofFailure.CLAIMS_MISMATCH)
    told(client().id, ProofFailure.ACCOUNT_REPLACED)
    await asyncio.sleep(0.1)
    first = sorted(events.recorded)
    await asyncio.sleep(0.3)
    told(client().id, ProofFailure.CLAIMS_MISMATCH)
    await asyncio.sleep(0.1)
    running.cancel()

    reasons = sorted(EVENT_REASONS.values())
    assert first == [(client().id, reason, EVENT_NOTES[reason], True) for reason in reasons]
    assert len(events.recorded) == 3


async def test_a_client_that_went_is_forgotten() -> None:
    """There is nothing to write an Event on, and nothing is kept."""
    events = Events()
    told = NearMisses(FakeRegistry(), events)
    running = asyncio.create_task(told.queue.run())
    told(client().id, ProofFailure.CLAIMS_MISMATCH)
    await asyncio.sleep(0.1)
    running.cancel()

    assert events.recorded == []
