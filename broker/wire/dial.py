"""A TCP connection to a host that may have several addresses, of which not every one answers."""

import asyncio
import socket

from aiohappyeyeballs import AddrInfoType, start_connection

RACE_SECONDS = 0.25
"""How long one address is waited for before the next one is tried beside it (RFC 8305, 5)."""


async def dial(host: str, port: int, first: int) -> socket.socket:
    """Return a socket that is connected to the address that answers first; whoever gets it closes it.

    ``first`` tells with which address to begin, counted on after the last one. Raises OSError where no address is
    known, or none can be connected to. Nothing is left open then, nor when the wait is cancelled.
    """
    known = await _addresses(host, port)
    first %= len(known)
    try:
        return await start_connection([*known[first:], *known[:first]], happy_eyeballs_delay=RACE_SECONDS)
    except OSError as error:
        raise error.with_traceback(None) from None  # where it was raised has a name for it, and so would be kept by it


async def _addresses(host: str, port: int) -> list[AddrInfoType]:
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
