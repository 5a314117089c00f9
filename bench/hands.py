"""Many things done by many hands at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

HANDS = 24
"""How many things are done at a time."""

Thing = TypeVar("Thing")


async def each(things: Iterable[Thing], act: Callable[[Thing], Awaitable[None]]) -> None:
    """Do something with each of many things. Raises what ``act`` raises, in an ExceptionGroup."""
    left = iter(things)

    async def work() -> None:
        for thing in left:
            await act(thing)

    async with asyncio.TaskGroup() as hands:
        for _ in range(HANDS):
            hands.create_task(work())
