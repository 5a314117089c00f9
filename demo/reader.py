"""An app that takes its token from Vault before each call, as Vault Agent or External Secrets would."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.lab import Lab
from tests.support.processes import until

PAUSE_SECONDS = 0.02


class VaultReader:
    """Calls the API all the time with what Vault says; counts calls by version, and refusals (401)."""

    def __init__(self, lab: Lab, path: str) -> None:
        self._lab = lab
        self._path = path
        self.versions: Counter[int] = Counter()
        self.refused = 0

    @asynccontextmanager
    async def looping(self) -> AsyncIterator[None]:
        """Read and call for the length of the block, and at least once before it."""
        await self._once()
        task = asyncio.create_task(self._forever(), name="vault-reader")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def has_called(self, times: int, *, version: int) -> None:
        """Wait until so many calls were made with a version."""

        async def enough() -> bool:
            return self.versions[version] >= times

        await until(enough, what=f"the reader has called {times} times with version {version}")

    async def _forever(self) -> None:
        while True:
            await self._once()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _once(self) -> None:
        _, answer = await self._lab.vault.api("GET", self._path)
        token, version = answer["data"]["data"]["token"], answer["data"]["metadata"]["version"]
        status, _ = await self._lab.cluster.request("GET", "/api/v1/namespaces/shop/pods", token=token)
        self.versions[version] += 1
        self.refused += status == 401
