"""A proxy before the real API server that ends a broker in the middle of what it does."""

import asyncio
from collections.abc import Callable

from tests.support.fault_proxy import FaultProxy
from tests.support.processes import Program
from tests.support.scripted import Reply


def about(namespace: str) -> Callable[[str], bool]:
    """Return what tells calls about clients of a namespace from all others."""
    return lambda line: f"/namespaces/{namespace}/" in line and "/events" not in line


class KillingProxy(FaultProxy):
    """Keeps the request lines of the calls that count; the ``kill_at``-th of them, from 1, ends the victim instead."""

    counts: Callable[[str], bool] = staticmethod(lambda _: False)
    victim: Program | None = None
    kill_at = 0

    def arm(self, counts: Callable[[str], bool], victim: Program | None = None, kill_at: int = 0) -> list[str]:
        """Begin to count anew, and return the list that the calls are kept in."""
        self.counts, self.victim, self.kill_at = counts, victim, kill_at
        self.calls: list[str] = []
        return self.calls

    def _fault_for(self, request: bytes) -> Reply | None:
        line = request.split(b" HTTP/", 1)[0].decode()
        if not self.counts(line):
            return super()._fault_for(request)
        self.calls.append(line)
        return self._end_it if len(self.calls) == self.kill_at else None

    async def _end_it(self, writer: asyncio.StreamWriter) -> None:
        if self.victim is not None:
            await self.victim.kill()
        writer.close()
