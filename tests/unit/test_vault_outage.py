"""While Vault is away, nobody knocks for each copy; once it is back, all are looked at."""

import asyncio
from contextlib import suppress

import pytest

from broker.errors import BrokerError, Reason
from broker.model.audit_record import Origin
from broker.services.rotation import pulse as vault_pulse
from broker.services.rotation.pulse import VaultPulse
from broker.vault.answer import denied, unavailable
from tests.support.fake_vault import FakeVault
from tests.support.rotation import KEY, PLACE, HandClock, World, client
from tests.unit.test_vault_pulse import Told

AWAY = unavailable("sealed")


@pytest.fixture
def world() -> World:
    """Return a world with one client that wants a copy."""
    world = World()
    world.registry.put(client())
    return world


async def test_a_copy_that_got_no_answer_makes_vault_asked_and_is_looked_at_when_it_is_back(world: World) -> None:
    """It need not wait for its own turn after a failure."""
    world.vault.fault = AWAY
    with pytest.raises(BrokerError, match="vault_unavailable"):
        await world.visit()
    doubts, waiting = world.reach.doubts, len(world.rotator.queue)
    world.vault.fault = None

    world.rotator.reached_again()

    assert (doubts, waiting, len(world.rotator.queue)) == (1, 0, 1)


async def test_a_copy_is_left_alone_while_vault_is_away(world: World) -> None:
    """No call is made for it; its status says why, and it is looked at when Vault is back."""
    await world.visit()
    world.reach.away, world.power.calls = AWAY, []

    wait = await world.visit()
    fault = world.facts().fault
    world.reach.away = None
    world.rotator.reached_again()

    assert (wait, world.power.calls) == (None, [])
    assert fault is not None
    assert fault.reason is Reason.VAULT_UNAVAILABLE
    assert len(world.rotator.queue) == 1
    await world.visit()
    assert world.facts().fault is None


async def test_a_copy_is_looked_at_once_for_each_time_that_it_was_missed(world: World) -> None:
    """What was not missed is not looked at when Vault is asked again."""
    world.reach.away = AWAY
    await world.visit()
    world.rotator.reached_again()
    world.rotator.queue.forget(KEY)

    world.rotator.reached_again()

    assert len(world.rotator.queue) == 0


async def test_a_delivery_that_got_no_answer_makes_vault_asked(world: World) -> None:
    """A replica that does not lead visits nothing: it hears from its callers that Vault takes no writes."""
    await world.visit()
    world.vault.fault = AWAY
    with pytest.raises(BrokerError, match="vault_unavailable"):
        await world.rotator.deliver(client(), KEY.grant, Origin("request"))

    assert world.reach.doubts == 1


async def test_what_vault_refuses_is_no_outage(world: World) -> None:
    """It concerns one path, or the broker's role: others may be served."""
    world.vault.fault = denied("no policy")
    with pytest.raises(BrokerError, match="vault_denied"):
        await world.visit()

    world.rotator.reached_again()

    assert world.reach.doubts == 0
    assert len(world.rotator.queue) == 0


async def test_a_copy_that_nobody_wants_is_removed_when_vault_is_back(world: World) -> None:
    """Its client went meanwhile."""
    await world.visit()
    world.reach.away = AWAY
    del world.registry.known[KEY.client]
    await world.visit()
    assert world.vault.entries
    world.reach.away = None
    world.rotator.reached_again()

    assert len(world.rotator.queue) == 1
    await world.visit()
    assert not world.vault.entries


def pulse(vault: FakeVault) -> VaultPulse:
    """Return a pulse."""
    return VaultPulse(store=vault, place=PLACE, clock=HandClock(), metrics=Told())


async def test_a_pulse_knows_that_vault_is_away_until_it_answers() -> None:
    """Whoever missed it hears of each answer; a refusal is one, too."""
    vault, heard = FakeVault(), list[str]()
    beating = pulse(vault)
    beating.back = lambda: heard.append("back")
    vault.fault = AWAY
    await beating.beat()
    away, silent = beating.away, list(heard)
    vault.fault = denied("no")
    await beating.beat()
    refused = beating.away
    vault.fault = None
    await beating.beat()

    assert (away, silent, refused, beating.away, heard) == (AWAY, [], None, None, ["back"])


async def test_a_pulse_asks_soon_where_somebody_got_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again and again while it is away, however long the time between two otherwise is."""
    vault = FakeVault()
    beating, asked = counted_pulse(vault, monkeypatch, pause=0.001)
    running = asyncio.create_task(beating.run())
    async with asyncio.timeout(10):
        await asked.get()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked.get(), 0.1)
        vault.fault = AWAY
        beating.doubt()
        for _ in range(3):
            await asked.get()
        vault.fault = None
        with suppress(TimeoutError):  # it asks seldom again, or the test takes too long
            while True:
                await asyncio.wait_for(asked.get(), 0.5)
    running.cancel()


async def test_a_doubt_that_comes_soon_after_an_answer_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Vault that has just been unsealed may answer one and not the next."""
    beating, asked = counted_pulse(FakeVault(), monkeypatch, pause=0.2)
    running = asyncio.create_task(beating.run())
    async with asyncio.timeout(10):
        await asked.get()
        beating.doubt()
        await asked.get()
    running.cancel()

    assert asked.empty()  # it has asked once more, and not again and again


async def test_a_doubt_is_not_answered_by_a_standby_that_only_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until somebody got no answer it is asked for a listing alone, which costs Vault no write."""
    vault = FakeVault()
    vault.standby = AWAY
    beating, asked = counted_pulse(vault, monkeypatch, pause=0.001)
    running = asyncio.create_task(beating.run())
    async with asyncio.timeout(10):
        await asked.get()
        before = beating.away
        beating.doubt()
        await asked.get()
    running.cancel()

    assert (before, beating.away) == (None, AWAY)


def counted_pulse(
    vault: FakeVault, monkeypatch: pytest.MonkeyPatch, *, pause: float
) -> tuple[VaultPulse, asyncio.Queue[None]]:
    """Return a pulse that asks seldom unless somebody doubts, and what tells of each time that it has asked."""
    monkeypatch.setattr(vault_pulse, "EVERY_SECONDS", 3600.0)
    monkeypatch.setattr(vault_pulse, "AWAY_SECONDS", pause)
    beating, asked = pulse(vault), asyncio.Queue[None]()
    beat = beating.beat

    async def counted(*, doubted: bool = False) -> None:
        await beat(doubted=doubted)
        asked.put_nowait(None)

    beating.beat = counted  # type: ignore[method-assign]
    return beating, asked
