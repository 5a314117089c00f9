"""Taking callers' connections, no more at a time than the process can bear."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

HANDSHAKE_SECONDS = 10.0
BACKLOG = 1024
AGAIN_SECONDS = 0.1
"""How soon it is tried again to accept where that failed, such as for want of file descriptors."""

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class Acceptor(Generic[ProtocolT]):
    """Accepts connections on an address, and turns away those beyond ``most``.

    They are counted from the moment in which they are accepted, so those that never finish a handshake count, too.
    asyncio's own server has no bound, and no way to refuse one before its handshake.
    """

    def __init__(
        self, make: Callable[[], ProtocolT], tls: ssl.SSLContext | None, most: int, turned_away: Callable[[], bytes]
    ) -> None:
        self._make = make
        self._tls = tls
        self._most = most
        self._turned_away = turned_away
        self._open: set[ProtocolT] = set()
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, address: str, port: int) -> list[str]:
        """Listen, and return where. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, protocol, _, where in dict.fromkeys(found):
            self._sockets.append(_bound(family, protocol, where))
        for listening in self._sockets:
            self._start(self._accept(listening))
        return [str(listening.getsockname()) for listening in self._sockets]

    def gone(self, connection: ProtocolT) -> None:
        """Take note that a connection is over."""
        self._open.discard(connection)

    async def close(self) -> None:
        """Accept nobody any more; the connections that there are go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop, failing = asyncio.get_running_loop(), False
        while True:
            try:
                caller, _ = await loop.sock_accept(listening)
            except OSError as error:
                if not failing:  # the first of several in a row: there are ten a second
                    log.warning("http.not_accepted", error=errno.errorcode.get(error.errno or 0, ""))
                failing = True
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            failing = False
            if len(self._open) < self._most:
                self._start(self._welcome(caller))
            else:
                self._turn_away(caller)
            await asyncio.sleep(0)  # where many come, those who are there get their turn, too

    async def _welcome(self, caller: socket.socket) -> None:
        connection = self._make()
        self._open.add(connection)
        seconds = HANDSHAKE_SECONDS if self._tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, caller, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except OSError:  # a handshake that failed or took too long
            self.gone(connection)
            connection.connection_lost(None)  # nobody else will say so, and it lets go of what keeps it

    def _turn_away(self, caller: socket.socket) -> None:
        answer = self._turned_away()
        try:
            caller.setblocking(False)  # noqa: FBT003 - the standard library's own
            if self._tls is None:  # nothing can be said before the handshake, which would be the larger part of it
                caller.send(answer)
        except OSError:
            pass  # it went by itself
        finally:
            caller.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bound(family: int, protocol: int, where: tuple[object, ...]) -> socket.socket:
    # The protocol is named, so that asyncio sets TCP_NODELAY on what is accepted.
    listening = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
        listening.setblocking(False)  # noqa: FBT003 - the standard library's own
    except BaseException:
        listening.close()
        raise
    return listening
