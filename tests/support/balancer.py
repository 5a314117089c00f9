"""What a Service does for callers: each new connection goes to a replica that was ready a moment ago.

Like kube-proxy it knows connections, not requests, looks at none again once it is made, and follows readiness late: the
kubelet or the endpoints controller has to notice, and every node to be told.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from tests.support.broker import BrokerProcess
from tests.support.processes import free_port

LOOK_SECONDS = 0.05
WIRE_SECONDS = 0.02
"""How long a byte takes, either way: so what is sent and a connection that is closed can cross each other."""


class Balancer:
    """Listens at ``url`` and passes on to ``replicas`` in turn; a change of readiness counts ``lag`` seconds later."""

    def __init__(self, replicas: Sequence[BrokerProcess], lag: float) -> None:
        self._replicas = replicas
        self._lag = lag
        self._seen = dict.fromkeys(replicas, False)
        self._ready = dict.fromkeys(replicas, False)
        self._turn = itertools.count()
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.refused = 0
        """Connections that a replica did not take, or for which there was none."""

    @classmethod
    @asynccontextmanager
    async def start(cls, replicas: Sequence[BrokerProcess], *, lag: float) -> AsyncIterator[Self]:
        """Balance until leaving."""
        balancer = cls(replicas, lag)
        async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as session:
            looking = [tasks.create_task(balancer._follow(session, replica)) for replica in replicas]
            server = await asyncio.start_server(balancer._serve, "127.0.0.1", balancer._port, backlog=1024)
            try:
                yield balancer
            finally:
                server.close()
                for task in looking:
                    task.cancel()

    def sends_to(self, replica: BrokerProcess) -> bool:
        """Tell whether new connections may go to a replica."""
        return self._ready[replica]

    async def _follow(self, session: aiohttp.ClientSession, replica: BrokerProcess) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ready = await _is_ready(session, replica)
            if ready is not self._seen[replica]:
                self._seen[replica] = ready
                loop.call_later(self._lag, self._ready.__setitem__, replica, ready)
            await asyncio.sleep(LOOK_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await self._connect()
        except OSError:
            self.refused += 1
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ready = [replica for replica in self._replicas if self._ready[replica]]
        if not ready:
            raise OSError("no replica is ready")
        replica = ready[next(self._turn) % len(ready)]
        return await asyncio.open_connection("127.0.0.1", urlsplit(replica.url).port)


async def _is_ready(session: aiohttp.ClientSession, replica: BrokerProcess) -> bool:
    try:
        async with session.get(f"{replica.ops_url}/readyz", timeout=aiohttp.ClientTimeout(total=5)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes until there is no more, and then close."""
    with suppress(OSError):
        while chunk := await source.read(65536):
            await asyncio.sleep(WIRE_SECONDS)
            sink.write(chunk)
            await sink.drain()
        await asyncio.sleep(WIRE_SECONDS)
    sink.close()
