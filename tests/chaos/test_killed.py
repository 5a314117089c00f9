"""Brokers that are killed again and again, at no particular moment, while everything goes on."""

import asyncio
import os
import random
import secrets
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
import pytest

from tests.chaos.conftest import Stage
from tests.support.broker import BrokerProcess, Registered
from tests.support.chaos.leading import leads
from tests.support.chaos.ledger import NO_ANSWER
from tests.support.chaos.load import Caller, Turns, running
from tests.support.chaos.scene import HEALED_SECONDS, Scene
from tests.support.chaos.setting import DELIVER, ISSUE, SINGLE
from tests.support.processes import until

KILLS, STARTING, LEADING = 100, frozenset({0, 4, 7}), 20
"""So many kills; these of ten come at any time, to a broker that is starting, mostly; one in so many to who leads.

Hardly any of the others leads: with a kill each second there is seldom a leader.
"""

SERVING, LED, CUT_OFF = 70, 3, 35
"""Bounds for how many hit a broker that has served since it was started; one that led; a call of its own."""

LONGEST = 0.5
"""In seconds, from when the broker has served somebody, or from the kill before, until it is killed."""

AT_THIS_ONE, KNOCKING, PAUSE = "the one that is killed", 0.1, 0.02
"""What calls are called that go to the broker that will be killed, and the seconds between two of a kind.

The first is while it starts: more calls would only slow that down.
"""

SEED = "CHAOS_SEED"
SOON = 30.0


@dataclass(slots=True)
class Kills:
    """How many hit a broker that served, of these how many one that led, and how many cut a call off."""

    serving: int = 0
    leading: int = 0
    cut_off: int = 0


@pytest.mark.timeout(900)
async def test_a_hundred_kills_at_random_under_load(stage: Stage) -> None:
    """Of two replicas, either, the leader or not, mostly one that serves. CHAOS_SEED=n repeats the printed moments."""
    seed = int(os.environ.get(SEED) or secrets.randbelow(2**32))
    chance, kills = random.Random(seed), Kills()  # noqa: S311 - moments, not secrets
    async with stage.scene("killed", replicas=2) as scene:
        async with scene.fault(f"broker: one of two killed (SIGKILL) {KILLS} times at random, {SEED}={seed}"):
            for number in range(KILLS):
                await _killed(scene, chance, kills, number)
                if number % 10 == 0:
                    await scene.tenant.patch("probe", {"suspend": chance.random() < 0.5})
            await scene.tenant.patch("probe", {"suspend": False})
        scene.outcome.fault += f"; {kills}"
        outcome = await scene.healed()

    assert kills.serving >= SERVING
    assert kills.cut_off >= CUT_OFF
    assert kills.leading >= LED
    assert all(outcome.seen[what]["200"] > 0 for what in (ISSUE, SINGLE, DELIVER))
    assert max(outcome.healed[what] for what in (ISSUE, SINGLE, DELIVER)) < SOON


async def _killed(scene: Scene, chance: random.Random, kills: Kills, number: int) -> None:
    """Kill one at a random moment, and start it again at once."""
    after = chance.uniform(0, LONGEST)  # the moment is what is tested
    broker = await _leader(scene) if number % LEADING == 1 else chance.choice(scene.brokers)
    if number % 10 in STARTING:
        await asyncio.sleep(after)
        await broker.program.kill()
    else:
        await _killed_while_it_serves(scene, broker, after, kills)
    broker.program.start()


async def _leader(scene: Scene) -> BrokerProcess:
    """Return who leads, once somebody does: replicas that start do not say."""
    found: list[BrokerProcess] = []

    async def led() -> bool:
        for broker in scene.brokers:
            with suppress(aiohttp.ClientError):
                found.extend([broker] if await leads(broker) else [])
        return bool(found)

    await until(led, what="a replica leads", seconds=HEALED_SECONDS)
    return found[0]


async def _killed_while_it_serves(scene: Scene, broker: BrokerProcess, after: float, kills: Kills) -> None:
    """Kill a broker ``after`` some seconds from when it has handed a token out, while it is asked for more."""
    asked = [Caller(AT_THIS_ONE, Turns([broker]), *what, KNOCKING, scene.ledger, scene.audit) for what in _asked(scene)]

    async def serves() -> bool:
        return bool(asked[0].ids)

    async with running(asked):
        await until(serves, what="the one that will be killed serves", seconds=HEALED_SECONDS)
        leading = await leads(broker)
        for caller in asked:
            caller.pause = PAUSE
        await asyncio.sleep(after)
        kills.serving += broker.program.running
        kills.leading += leading
        killed = scene.now
        await broker.program.kill()
    lost = scene.ledger.outcomes(AT_THIS_ONE, killed - LONGEST, killed)[NO_ANSWER]
    kills.cut_off += lost > 0


def _asked(scene: Scene) -> list[tuple[Registered, dict[str, str]]]:
    return [(scene.clients["web"], {"grant": "together"}), (scene.clients["app"], {"deliver": "vault"})]
