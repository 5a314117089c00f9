"""Looks again and again, for as long as somebody should have to wait."""

import asyncio
from collections.abc import AsyncIterator

POLL_SECONDS = 0.5


async def rounds(seconds: float) -> AsyncIterator[None]:
    """Yield at once, and then every half second until the time is over: each is a chance to see that it is done."""
    clock = asyncio.get_running_loop()
    end = clock.time() + seconds
    while clock.time() < end:
        yield
        await asyncio.sleep(POLL_SECONDS)
