"""The network between a broker and a server: bytes are passed on, held up, or the connection is cut."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.chaos.proxy import ChaosProxy
from tests.support.lab import Lab

_BYTES = 65536


@dataclass
class Link:
    """Passes bytes on to a server, TLS and all: its certificate is for every port of this address."""

    server: str
    others: Sequence[str] = ()
    port: int = 0
    cut: bool = False
    _turn: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _passing: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def to(cls, server: str, *others: str) -> AsyncIterator["Link"]:
        """Listen on a free port of loopback for the length of the block.

        With ``others``, each connection goes to the next server that takes it, as behind a Service of several.
        """
        link = cls(server, others)
        link._passing.set()
        listening = await asyncio.start_server(link._serve, "127.0.0.1", 0, backlog=1024)
        link.port = listening.sockets[0].getsockname()[1]
        try:
            yield link
        finally:
            listening.close()
            link.sever()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def sever(self) -> None:
        """End all connections, and each new one at once."""
        self.cut = True
        for writer in self._open:
            writer.transport.abort()

    def hold_up(self) -> None:
        """Let connections be made, and nothing go through them: packets are lost, and nobody says so."""
        self._passing.clear()

    def mend(self) -> None:
        """Pass everything on again."""
        self.cut = False
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if self.cut:
                return
            back, upstream = await self._connect()
            self._open.add(upstream)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, upstream))
                tasks.create_task(self._pump(back, writer))
        except* OSError:
            pass  # either side has gone
        finally:
            for one in filter(None, (writer, upstream)):
                self._open.discard(one)
                one.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        servers = (self.server, *self.others)
        self._turn += 1
        for number in range(self._turn, self._turn + len(servers)):
            where = urlsplit(servers[number % len(servers)])
            with suppress(ConnectionRefusedError):
                return await asyncio.open_connection(where.hostname, where.port)
        raise ConnectionRefusedError

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_BYTES):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof() if writer.can_write_eof() else None


@dataclass(frozen=True, slots=True)
class Links:
    """A replica's ways to the API server and to Vault."""

    kubernetes: Link
    vault: Link
    ca_file: Path
    """Who vouches for what is at the end of the first."""

    @classmethod
    @asynccontextmanager
    async def start(cls, lab: Lab, proxy: ChaosProxy | None = None) -> AsyncIterator["Links"]:
        """Open both; that to the API server may lead to a ``proxy`` before it."""
        server, ca_file = (proxy.url, proxy.ca_file) if proxy else (lab.cluster.server, lab.cluster.ca_file)
        async with Link.to(server) as kubernetes, Link.to(lab.vault.address) as vault:
            yield cls(kubernetes, vault, ca_file)

    def sections(self, lab: Lab, broker: str) -> dict[str, Any]:
        """Return the sections of a broker, of that name, which has no other way."""
        folder = lab.folder / broker
        return {
            "kubernetes": {
                "server": self.kubernetes.url,
                "ca_file": str(self.ca_file),
                "token_file": str(folder / "token"),
                "timeout_seconds": 2,
            },
            "vault": {
                "address": self.vault.url,
                "ca_file": str(lab.vault.ca_file),
                "token_file": str(folder / "vault-token"),
                "timeout_seconds": 3,
            },
        }
