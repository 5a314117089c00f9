"""A proxy before the real API server that passes everything on, and answers TokenRequests as badly as it is told."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.scripted import Reply, read_request

_TOKEN_REQUEST = re.compile(rb"POST /api/v1/namespaces/[^/]+/serviceaccounts/[^/]+/token ")


class FaultProxy:
    """``fault`` answers TokenRequests where it is set; ``token_requests`` counts those that came, passed on or not."""

    def __init__(self, cluster: Cluster, ca_file: Path) -> None:
        self._cluster = cluster
        self.ca_file = ca_file
        self.url = ""
        self.fault: Reply | None = None
        self.token_requests = 0

    @classmethod
    @asynccontextmanager
    async def start(cls, cluster: Cluster, folder: Path) -> AsyncIterator["FaultProxy"]:
        """Listen on a free port of loopback, with a certificate of an authority of its own."""
        authority = Authority.create(folder, "proxy")
        files = authority.server("proxy")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(files.certificate, files.key)
        proxy = cls(cluster, authority.file)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0, ssl=tls)
        proxy.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        try:
            upstream = await self._connect()
            while not writer.is_closing():
                request = await read_request(reader)
                minting = _TOKEN_REQUEST.match(request) is not None
                self.token_requests += minting
                if minting and self.fault is not None:
                    await self.fault(writer)
                else:
                    upstream[1].write(request)
                    await _relay(upstream[0], writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side has gone
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        server = urlsplit(self._cluster.server)
        tls = ssl.create_default_context(cafile=str(self._cluster.ca_file))
        return await asyncio.open_connection(server.hostname, server.port or 443, ssl=tls)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass one answer on as it comes; a watch is one that does not end."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(head)
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        await _relay_chunks(reader, writer)
    else:
        length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        writer.write(await reader.readexactly(int(length[1]) if length else 0))
    await writer.drain()


async def _relay_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    size = 1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line, 16)
        writer.write(line + await reader.readexactly(size + 2))
        await writer.drain()
