"""Faults of the broker's own process: what it runs out of, and whom it cannot write to."""

import resource
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.chaos.ledger import NO_ANSWER
from tests.support.chaos.process import NO_MORE_FILES, idle_connections, limited, listen, livez, open_files
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import DELIVER, ISSUE, SINGLE
from tests.support.lab import Lab

UNRECORDED = "503 audit_unavailable"
ROOM, CROWD = 100, 150
SOON = 15.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standing(harmed: Lab) -> AsyncIterator[Scene]:
    """Start a broker that lets few callers in at a time."""
    async with Scene.start(harmed, "process", listen=listen(max_connections=ROOM)) as running:
        yield running


async def test_no_file_descriptor_is_left(scene: Scene) -> None:
    """Nobody gets in, nothing gets out, and all goes on when there are some again; it is the same process."""
    pid = scene.broker.program.pid
    async with scene.fault("broker: no file descriptor left"):
        with limited(scene.broker, resource.RLIMIT_NOFILE, NO_MORE_FILES):
            await scene.sees(ISSUE, NO_ANSWER, times=2)
    outcome = await scene.healed()

    assert scene.broker.program.pid == pid
    assert scene.broker.program.running
    assert max(outcome.healed[what] for what in (ISSUE, SINGLE, DELIVER)) < SOON


async def test_a_crowd_of_silent_callers_leaves_file_descriptors_for_the_rest(scene: Scene) -> None:
    """More connections than there is room for: one more is told so at once, and probes are answered."""
    async with scene.fault(f"broker: {CROWD} silent callers, room for {ROOM}"):
        with idle_connections(scene.broker, CROWD):
            await scene.sees(ISSUE, "503 overloaded", times=5)
            alive = [await livez(scene.broker) for _ in range(10)]
            files = open_files(scene.broker)
    outcome = await scene.healed()

    assert set(alive) == {200}
    assert files < ROOM + 64
    assert max(outcome.healed[what] for what in (ISSUE, SINGLE, DELIVER)) < SOON


async def test_the_disk_is_full(scene: Scene) -> None:
    """Audit log and log can grow no further (EFBIG, as with ENOSPC): nothing is handed out until they can."""
    size = scene.broker.audit_file.stat().st_size
    async with scene.fault("broker: disk full for audit log and log"):
        with limited(scene.broker, resource.RLIMIT_FSIZE, size + 100):
            for what in (ISSUE, SINGLE, DELIVER):
                await scene.sees(what, UNRECORDED, times=2)
            alive = await livez(scene.broker)
    outcome = await scene.healed()

    assert alive == 200
    assert all("200" not in outcome.seen[what] for what in (SINGLE, DELIVER))
    assert max(outcome.healed[what] for what in (ISSUE, SINGLE, DELIVER)) < SOON
