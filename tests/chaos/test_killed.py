"""Brokers that are killed again and again, at no particular moment, while everything goes on."""

import asyncio
import os
import random
import secrets

import pytest

from tests.chaos.conftest import Stage
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import DELIVER, ISSUE, SINGLE

KILLS = 100
LONGEST = 0.8
"""The next one is killed within so many seconds: before it has started, mostly."""

SERVED = 5
"""Of so many kills, one comes when somebody has been served, and may hit the one that did it."""

SEED = "CHAOS_SEED"
SOON = 30.0


@pytest.mark.timeout(900)
async def test_a_hundred_kills_at_random_under_load(stage: Stage) -> None:
    """Of two replicas, either, the leader or not, ready or not yet. CHAOS_SEED=n repeats the printed moments."""
    seed = int(os.environ.get(SEED) or secrets.randbelow(2**32))
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    async with stage.scene("killed", replicas=2) as scene:
        async with scene.fault(f"broker: one of two killed (SIGKILL) {KILLS} times at random, {SEED}={seed}"):
            for number in range(KILLS):
                await _killed_after(scene, chance, served=number % SERVED == 0)
                if number % 10 == 0:
                    await scene.tenant.patch("probe", {"suspend": chance.random() < 0.5})
            await scene.tenant.patch("probe", {"suspend": False})
        outcome = await scene.healed()

    assert all(outcome.seen[what]["200"] > 0 for what in (ISSUE, SINGLE, DELIVER))
    assert max(outcome.healed[what] for what in (ISSUE, SINGLE, DELIVER)) < SOON


async def _killed_after(scene: Scene, chance: random.Random, *, served: bool) -> None:
    """Wait for a while, kill one, and start it again at once."""
    if served:
        await scene.sees(ISSUE, "200")
    await asyncio.sleep(chance.uniform(0, LONGEST))  # the moment is what is tested
    broker = chance.choice(scene.brokers)
    await broker.program.kill()
    broker.program.start()
