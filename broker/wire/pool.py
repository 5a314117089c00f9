"""Connections to one server."""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic
from urllib.parse import urlsplit

from broker.wire.connection import A, BrokenError, Connection, Made
from broker.wire.dial import dial


class ConnectionPool(Generic[A]):
    """Connections to one server, each made when it is needed and kept for the next request.

    There are no more than ``limit``; where all are in use, requests wait for their turn. One that was idle for
    ``idle_seconds`` is not used any more: that must be less than what the server allows. What came is an answer as it
    is ``made``, by a ``connection`` of the kind that is wanted.

    Where the server's name has several addresses, those that do not answer are passed over.
    """

    def __init__(
        self,
        server: str,
        tls: ssl.SSLContext,
        made: Made[A],
        *,
        limit: int,
        idle_seconds: float,
        connection: Callable[[Made[A]], Connection[A]] = Connection,
    ) -> None:
        parts = urlsplit(server)
        self._tls = tls if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._one_address = _is_address(self._host)
        self._turns = asyncio.Semaphore(limit)
        self._new = partial(connection, made)
        self._idle_seconds = idle_seconds
        self._idle: list[Connection[A]] = []
        self._all: set[Connection[A]] = set()
        self._generation = 0

    def trust(self, tls: ssl.SSLContext) -> None:
        """Make connections with this from now on."""
        self._tls = tls if self._tls else None

    async def exchange(self, request: bytes, deadline: float, *, repeatable: bool, largest: int | None = None) -> A:
        """Send a request and return its answer, of which no more than ``largest`` bytes are read.

        The server may close a connection just when a request is on its way. A ``repeatable`` request is then sent
        once more on a new connection, if nothing of an answer came. Raises OSError where no whole answer came, and
        TimeoutError where it did not come until the deadline, a time of the loop's clock.
        """
        await self._turn(deadline)
        try:
            connection = self._idle_connection()
            if connection is not None:
                try:
                    return await self._exchange(connection, request, deadline, largest)
                except BrokenError as error:
                    if not (repeatable and error.unanswered):
                        raise
            return await self._exchange(await self._connect(deadline), request, deadline, largest)
        finally:
            self._turns.release()

    def close_idle(self) -> None:
        """Close the connections that were idle for too long; to be called now and then."""
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        for connection in self._idle:
            if connection.idle_since < oldest:
                connection.abort()
        self._all = {connection for connection in self._all if not connection.closed}
        self._idle = [connection for connection in self._idle if connection.usable]

    def renew(self) -> None:
        """Have the next requests go over new connections, made to another address where the server has several.

        Those that carry no request are closed now, the others once they have their answer.
        """
        self._generation += 1
        while self._idle:
            self._drop(self._idle.pop())

    def close(self) -> None:
        """Close all connections, those with a request on them too."""
        for connection in self._all:
            connection.abort()
        self._all.clear()
        self._idle.clear()

    async def _turn(self, deadline: float) -> None:
        if self._turns.locked():
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        else:
            await self._turns.acquire()

    def _idle_connection(self) -> Connection[A] | None:
        """Return the one used last, so that those which are not needed grow old."""
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            self._drop(connection)
        return None

    async def _connect(self, deadline: float) -> Connection[A]:
        generation = self._generation
        async with asyncio.timeout_at(deadline):
            connection = await self._opened()
        connection.generation = generation
        self._all.add(connection)
        return connection

    async def _opened(self) -> Connection[A]:
        loop, tls = asyncio.get_running_loop(), self._tls
        name = self._host if tls else None
        if self._one_address:
            return (await loop.create_connection(self._new, self._host, self._port, ssl=tls, server_hostname=name))[1]
        sock = await dial(self._host, self._port, self._generation)
        try:
            return (await loop.create_connection(self._new, sock=sock, ssl=tls, server_hostname=name))[1]
        except BaseException:
            with suppress(OSError):
                sock.close()  # a loop that had not taken it yet leaves it open
            raise

    async def _exchange(self, connection: Connection[A], request: bytes, deadline: float, largest: int | None) -> A:
        try:
            return await connection.exchange(request, deadline, largest)
        finally:
            if connection.usable and connection.generation == self._generation:
                self._idle.append(connection)
            else:
                self._drop(connection)

    def _drop(self, connection: Connection[A]) -> None:
        connection.abort()
        self._all.discard(connection)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
