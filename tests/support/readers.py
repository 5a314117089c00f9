"""Apps that take their token from Vault and call the API server with it all the time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.cluster import Cluster
from tests.support.processes import until

PAUSE_SECONDS = 0.005
"""Between two calls, so that readers leave the processors to those that they read from."""


@dataclass
class VaultReader:
    """Makes ``calls_per_read`` calls with a version before it reads Vault again.

    ``read`` returns a version's number and its token. ``seen`` are the versions in the order in which they were read,
    and ``statuses`` counts the answers.
    """

    cluster: Cluster
    resource: str
    read: Callable[[], Awaitable[tuple[int, str]]]
    calls_per_read: int
    seen: list[int] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @asynccontextmanager
    async def looping(self) -> AsyncIterator[None]:
        """Read and call for the length of the block. Raises ExceptionGroup of what ended the loop before."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._forever(), name=f"vault-reader-{self.calls_per_read}")
            yield
            task.cancel()

    async def uses(self, version: int) -> None:
        """Wait until it has this version, or a later one."""

        async def reached() -> bool:
            return bool(self.seen) and self.seen[-1] >= version

        await until(reached, what=f"a reader has version {version}")

    async def calls(self) -> None:
        """Wait until it has made one more call."""
        before = self.statuses.total()

        async def once_more() -> bool:
            return self.statuses.total() > before

        await until(once_more, what="a reader calls once more")

    async def _forever(self) -> None:
        while True:
            version, token = await self.read()
            self.seen.append(version)
            for _ in range(self.calls_per_read):
                status, _ = await self.cluster.request("GET", self.resource, token=token)
                self.statuses[status] += 1
                await asyncio.sleep(PAUSE_SECONDS)
