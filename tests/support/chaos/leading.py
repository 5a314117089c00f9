"""Which of some replicas leads, by its own word, and what it does then."""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Protocol

from broker.errors import Reason
from broker.model.client import ROTATE_REQUESTED
from broker.model.times import timestamp
from tests.support.broker import BrokerProcess
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import ROTATED
from tests.support.processes import until

LEASE_SECONDS = 5
"""That of a scene's Lease."""

SLACK = 10.0
"""For a busy machine."""

_ROTATION_SECONDS = 90.0
_ASKED_SECONDS = 2.0
"""So often a new version is asked for: dates of such requests are whole seconds."""

_WROTE = ("success", str(Reason.VAULT_WRITE_CONFLICT))
"""How a write to Vault ends that came there: it is taken, or refused because another version is current by then."""


class Replicated(Protocol):
    """Has replicas, such as a scene."""

    @property
    def brokers(self) -> list[BrokerProcess]:
        """Return them, by number."""


async def leads(broker: BrokerProcess) -> bool:
    """Tell whether a replica says that it leads."""
    return "tokenbroker_leader 1.0" in (await broker.metrics()).splitlines()


async def leaders(of: Replicated) -> list[int]:
    """Return the numbers of those that say so."""
    return [number for number, broker in enumerate(of.brokers) if await leads(broker)]


async def until_leaders(scene: Scene, *numbers: int, seconds: float = 30.0) -> float:
    """Wait until these lead and no others, and return how long that took."""
    began = scene.now

    async def so() -> bool:
        return await leaders(scene) == sorted(numbers)

    await until(so, what=f"replicas {numbers} lead", seconds=seconds)
    return scene.now - began


async def until_one_leads(of: Replicated, *others: int, seconds: float = 30.0) -> int:
    """Wait until there is one leader, which is none of the ``others``, and return its number."""
    found: list[int] = []

    async def one() -> bool:
        found[:] = await leaders(of)
        return len(found) == 1 and found[0] not in others

    await until(one, what=f"one leads, not {others}", seconds=seconds)
    return found[0]


async def until_replaced(scene: Scene) -> None:
    """Wait until a copy in Vault was replaced that nobody asks for."""
    app = next(app for app in scene.apps if app.what == ROTATED)
    before = await app.token()

    async def replaced() -> bool:
        now = await app.token()
        return before is not None and now is not None and now[0] > before[0]

    await until(replaced, what="the copy was replaced", seconds=_ROTATION_SECONDS)


async def until_each_writes(scene: Scene) -> None:
    """Ask for versions of a copy until each replica, as its leader, has written to Vault, or was refused there.

    The second is by check-and-set. Raises ProgramError where one of them does nothing.
    """
    before = [await _writes(scene, broker) for broker in scene.brokers]

    async def each() -> bool:
        found = [await _writes(scene, broker) - had for broker, had in zip(scene.brokers, before, strict=True)]
        if not all(found):
            body = {"metadata": {"annotations": {ROTATE_REQUESTED: timestamp(datetime.now(UTC))}}}
            await scene.lab.cluster.request("PATCH", f"{scene.tenant.path}/kept", body)
        return all(found)

    await until(each, what="each replica has written to Vault", seconds=_ROTATION_SECONDS, pause=_ASKED_SECONDS)


async def _writes(scene: Scene, broker: BrokerProcess) -> Counter[str]:
    """Return how a replica's writes of the copy that nobody asks for have ended so far."""
    client = f'client="kept",grant="default",namespace="{scene.tenant.namespace}"'
    series = rf'^tokenbroker_vault_writes_total{{{client},outcome="(\w+)"}} (\S+)$'
    counts = re.findall(series, await broker.metrics(), re.MULTILINE)
    return Counter({outcome: int(float(value)) for outcome, value in counts if outcome in _WROTE})
