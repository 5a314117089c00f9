"""A server that says byte by byte what it is told to, for what no well-behaved server would say."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Answers one request on an open connection: writes, waits, or closes."""


@dataclass(slots=True)
class ScriptedServer:
    """Gives one reply after the other, over all connections; after the last one it hangs.

    ``requests`` are what arrived, with their bodies; ``connections`` counts those accepted.
    """

    replies: list[Reply]
    port: int = 0
    scheme: str = "http"
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    """Has an entry for each connection that is over."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def asked(self, times: int) -> None:
        """Wait until so many requests have arrived. Raises TimeoutError."""
        async with asyncio.timeout(5):
            while len(self.requests) < times:
                self.arrived.clear()
                await self.arrived.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        self.connections += 1
        try:
            while not writer.is_closing():
                self.requests.append(await read_request(reader))
                self.arrived.set()
                if not self.replies:
                    await reader.read()
                    return
                await self.replies.pop(0)(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            self.closed.put_nowait(None)


@asynccontextmanager
async def scripted(*replies: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """Run a server on a free port of loopback; with ``tls``, it shows the certificate of that."""
    served = ScriptedServer(list(replies), scheme="https" if tls else "http")
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


def says(*parts: bytes) -> Reply:
    """Write the parts, each by itself, and keep the connection."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return reply


def says_and_closes(*parts: bytes) -> Reply:
    """Write the parts and close."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        await says(*parts)(writer)
        writer.close()

    return reply


def resets() -> Reply:
    """Break the connection off, as a killed peer does."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    return reply


def floods(part: bytes) -> Reply:
    """Write the part again and again until the other side has had enough."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)  # drain alone lets nobody in who would say that the connection is lost

    return reply


def hangs() -> Reply:
    """Say nothing until the other side gives up (which is only noticed under TLS)."""
    return drips(b"", b"")


def drips(start: bytes, part: bytes) -> Reply:
    """Write the start, and then the part again and again, a little later each."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(part)
            await asyncio.sleep(0.02)

    return reply


def answer(status: int, body: bytes = b"{}", headers: Iterable[bytes] = ()) -> bytes:
    """Return a whole answer with its length."""
    lines = [b"HTTP/1.1 %d Some Words" % status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Return one request with its body. Raises asyncio.IncompleteReadError at the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)
