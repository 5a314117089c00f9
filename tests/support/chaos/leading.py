"""Which of some replicas leads, by its own word, and what it does then."""

from tests.support.broker import BrokerProcess
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import ROTATED
from tests.support.processes import until

LEASE_SECONDS = 5
"""That of a scene's Lease."""

SLACK = 10.0
"""For a busy machine."""

_ROTATION_SECONDS = 90.0


async def leads(broker: BrokerProcess) -> bool:
    """Tell whether a replica says that it leads."""
    return "tokenbroker_leader 1.0" in (await broker.metrics()).splitlines()


async def leaders(scene: Scene) -> list[int]:
    """Return the numbers of those that say so."""
    return [number for number, broker in enumerate(scene.brokers) if await leads(broker)]


async def until_leaders(scene: Scene, *numbers: int, seconds: float = 30.0) -> float:
    """Wait until these lead and no others, and return how long that took."""
    began = scene.now

    async def so() -> bool:
        return await leaders(scene) == sorted(numbers)

    await until(so, what=f"replicas {numbers} lead", seconds=seconds)
    return scene.now - began


async def until_one_leads(scene: Scene) -> int:
    """Wait until there is one leader, and return its number."""

    async def one() -> bool:
        return len(await leaders(scene)) == 1

    await until(one, what="one leads")
    return (await leaders(scene))[0]


async def until_replaced(scene: Scene) -> None:
    """Wait until a copy in Vault was replaced that nobody asks for."""
    app = next(app for app in scene.apps if app.what == ROTATED)
    before = await app.token()

    async def replaced() -> bool:
        now = await app.token()
        return before is not None and now is not None and now[0] > before[0]

    await until(replaced, what="the copy was replaced", seconds=_ROTATION_SECONDS)
