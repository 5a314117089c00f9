"""What waits for what after a start, so that no order is asked of anybody else."""

from collections.abc import Callable, Coroutine
from typing import Any

from broker.parts import Parts
from broker.services.reconcile import Reconciler

Job = Callable[[], Coroutine[Any, Any, None]]


def looking(parts: Parts, reconciler: Reconciler) -> Job:
    """Return what visits clients, once it is known who they are and whether anything may be issued for them."""

    async def run() -> None:
        if parts.namespaces is not None:
            await parts.namespaces.synced.wait()
        if parts.canary is not None:
            await parts.canary.looked.wait()
        await parts.clients.registry.synced.wait()
        await reconciler.run(by_word=parts.config.registry.directory is None)

    return run


def leading(parts: Parts, reconciler: Reconciler) -> Job:
    """Return what holds the Lease, once this replica can issue for those whom the leader before it had looked at.

    One that led at once would have to look at each account itself before.
    """

    async def run() -> None:
        await reconciler.first.over.wait()
        await parts.leadership.run()

    return run
