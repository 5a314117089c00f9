"""Many requests for tokens at once, over a bounded number of connections, as the instances of one client make them."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.support.broker import BrokerProcess, Registered, basic

CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got; times are by this process's monotonic clock."""

    status: int
    body: Any
    began: float
    ended: float


@dataclass(slots=True)
class Volley:
    """Requests under way; ``answers`` are in the order in which they came."""

    answers: list[Answer] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many answers are there. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.answers) < count:
                self.arrived.clear()
                await self.arrived.wait()


async def volley(broker: BrokerProcess, client: Registered, count: int, *, connections: int = CONNECTIONS) -> Volley:
    """Make so many requests, and return their answers."""
    async with asked(broker, client, count, connections=connections) as made:
        await made.until(count)
    return made


@asynccontextmanager
async def asked(
    broker: BrokerProcess, client: Registered, count: int, *, connections: int = CONNECTIONS
) -> AsyncIterator[Volley]:
    """Make so many requests; those that are not answered by the end of the block are given up."""
    async with _asking(broker, client, iter(range(count)), connections) as made:
        yield made


@asynccontextmanager
async def endless(
    broker: BrokerProcess, client: Registered, *, connections: int = CONNECTIONS
) -> AsyncIterator[Volley]:
    """Go on asking until the end of the block."""
    async with _asking(broker, client, itertools.count(), connections) as made:
        yield made


@asynccontextmanager
async def _asking(
    broker: BrokerProcess, client: Registered, numbers: Iterator[int], connections: int
) -> AsyncIterator[Volley]:
    made, headers = Volley(), {"Authorization": basic(*client.auth)}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), headers=headers) as session:

        async def ask() -> None:
            for _ in numbers:
                began = time.monotonic()
                async with session.post(f"{broker.url}/v1/tokens", json={}) as answer:
                    body = await answer.json(content_type=None)
                made.answers.append(Answer(answer.status, body, began, time.monotonic()))
                made.arrived.set()

        tasks = [asyncio.create_task(ask()) for _ in range(connections)]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            failed = [it for it in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(it, Exception)]
    if failed:
        raise failed[0]
