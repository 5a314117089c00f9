"""What a soak draws from: each harms one thing for some seconds, and has put it right when it returns."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from tests.support.chaos.scene import Scene
from tests.support.processes import Program
from tests.support.scripted import Reply, answer, says

Strike = Callable[[Scene, random.Random], Awaitable[None]]

SHORT, LONG = 2.0, 8.0
"""A fault lasts so many seconds, and what a start takes."""

ETCD_SECONDS = 5.0
"""Less than how long an API server remembers whom it knows: readers of Vault are not the ones to suffer."""

MINTS, ANCHORS = "POST .*/token ", "(POST|DELETE) .*/secrets"
LISTS_AND_WATCHES = "GET .*[?](limit=|watch=1)"
BUSY = says(answer(429, json.dumps({"kind": "Status", "code": 429}).encode(), [b"Retry-After: 1"]))
FAILING = says(answer(500, json.dumps({"kind": "Status", "code": 500}).encode()))


def some(dice: random.Random, most: float = LONG) -> float:
    """Draw how long a fault lasts, in seconds."""
    return dice.uniform(SHORT, most)


async def api_server_killed(scene: Scene, dice: random.Random) -> None:
    """End it like a crash of its machine, and start it some time later."""
    cluster = scene.lab.cluster
    await cluster.api_server.kill()
    await asyncio.sleep(some(dice))
    cluster.api_server.start()
    await cluster.ready()


async def api_server_paused(scene: Scene, dice: random.Random) -> None:
    """Keep connections open, and let nothing answer."""
    await _paused(scene.lab.cluster.api_server, some(dice))


async def etcd_paused(scene: Scene, dice: random.Random) -> None:
    """Let the API server neither read nor write."""
    await _paused(scene.lab.cluster.etcd, some(dice, ETCD_SECONDS))


async def vault_sealed(scene: Scene, dice: random.Random) -> None:
    """Let it answer 503 to everything."""
    await scene.lab.vault.seal()
    await asyncio.sleep(some(dice))
    await scene.lab.vault.unseal()


async def vault_paused(scene: Scene, dice: random.Random) -> None:
    """Keep connections open, and let nothing answer."""
    await _paused(scene.lab.vault.program, some(dice))


async def vault_restarted(scene: Scene, dice: random.Random) -> None:
    """End it, and start it again with its data."""
    await scene.lab.vault.stop()
    await asyncio.sleep(some(dice))
    await scene.lab.vault.restart()


async def broker_killed(scene: Scene, dice: random.Random) -> None:
    """End the first broker, which may lead, without a word; the second lives as long as the soak does."""
    await scene.broker.program.kill()
    await asyncio.sleep(some(dice))
    scene.broker.program.start()
    await scene.broker.ready()


async def broker_stopped(scene: Scene, dice: random.Random) -> None:
    """Ask the first broker to end, and start it again."""
    await scene.broker.program.stop()
    await asyncio.sleep(some(dice))
    scene.broker.program.start()
    await scene.broker.ready()


async def broker_paused(scene: Scene, dice: random.Random) -> None:
    """Freeze one of them, long enough to lose the lead without knowing it, or not."""
    await _paused(dice.choice(scene.brokers).program, some(dice))


async def watches_cut(scene: Scene, dice: random.Random) -> None:
    """Cut them again and again, those of one broker or of both."""
    hurt = dice.choice((scene.proxies[:1], scene.proxies[1:], scene.proxies))
    for _ in range(int(some(dice) / 0.5)):
        for proxy in hurt:
            proxy.cut_watches()
        await asyncio.sleep(0.5)


async def mints_refused(scene: Scene, dice: random.Random) -> None:
    """Let the API server have enough of TokenRequests."""
    with _hurt(scene, dice, MINTS, BUSY):
        await asyncio.sleep(some(dice))


async def anchors_refused(scene: Scene, dice: random.Random) -> None:
    """Let the API server neither make nor delete anchors."""
    with _hurt(scene, dice, ANCHORS, dice.choice((BUSY, FAILING))):
        await asyncio.sleep(some(dice))


async def watches_refused(scene: Scene, dice: random.Random) -> None:
    """End watches, and let neither them nor lists come back."""
    with _hurt(scene, dice, LISTS_AND_WATCHES, dice.choice((BUSY, FAILING))):
        await asyncio.sleep(some(dice))


async def all_refused(scene: Scene, dice: random.Random) -> None:
    """Answer everything 500, the Lease, too: the lead may go to the other broker."""
    with _hurt(scene, dice, ".*", FAILING):
        await asyncio.sleep(some(dice))


FAULTS: Mapping[str, Strike] = {
    "API server killed": api_server_killed,
    "API server paused": api_server_paused,
    "etcd paused": etcd_paused,
    "Vault sealed": vault_sealed,
    "Vault paused": vault_paused,
    "Vault restarted": vault_restarted,
    "broker killed": broker_killed,
    "broker stopped": broker_stopped,
    "broker paused": broker_paused,
    "watches cut": watches_cut,
    "TokenRequests answered 429": mints_refused,
    "anchors answered 429 or 500": anchors_refused,
    "watches ended, lists answered 429 or 500": watches_refused,
    "everything answered 500": all_refused,
}


def drawn(faults: Mapping[str, Strike], dice: random.Random) -> Iterator[str]:
    """Draw names without end; none comes again before all have come."""
    while True:
        yield from dice.sample(sorted(faults), len(faults))


async def _paused(program: Program, seconds: float) -> None:
    program.pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        program.resume()


@contextmanager
def _hurt(scene: Scene, dice: random.Random, pattern: str, reply: Reply) -> Iterator[None]:
    """Let what stands before the API server answer so, to one broker or to both."""
    proxies = dice.choice((scene.proxies[:1], scene.proxies[1:], scene.proxies))
    for proxy in proxies:
        proxy.hurt(pattern, reply)
        if pattern in {".*", LISTS_AND_WATCHES}:
            proxy.cut_watches()
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.heal()
