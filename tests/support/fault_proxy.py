"""A proxy before the real API server that passes everything on but TokenRequests, which it answers as it is told to."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

from broker.model.decision import MIN_TTL_SECONDS
from tests.support.broker import BrokerProcess, Registered
from tests.support.broker import Reply as Answered
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.scripted import Reply, read_request

NAMESPACE = "behind-proxy"
COUNTED = ("token_request_failures", "http_problems", "requests_refused", "tokens_issued")
_TOKEN_REQUEST = re.compile(rb"POST /api/v1/namespaces/[^/]+/serviceaccounts/[^/]+/token ")
_TRIAL = b'"expirationSeconds":%d,' % MIN_TTL_SECONDS
"""The broker tries out grants by itself, at any time: so it is told apart from what callers cause."""


class Server(Protocol):
    """What a proxy stands before."""

    server: str
    ca_file: Path


class FaultProxy:
    """``fault`` answers callers' TokenRequests where it is set.

    ``mints`` counts those that came, hurt or not, and ``trials`` those by which the broker tries out a grant, which
    are passed on.
    """

    def __init__(self, server: Server, ca_file: Path) -> None:
        self._server = server
        self.ca_file = ca_file
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.url = ""
        self.fault: Reply | None = None
        self.mints = 0
        self.trials = 0

    @classmethod
    @asynccontextmanager
    async def start(cls, server: Server, folder: Path) -> AsyncIterator[Self]:
        """Listen on a free port of loopback, with a certificate of an authority of its own."""
        authority = Authority.create(folder, "proxy")
        files = authority.server("proxy")
        proxy = cls(server, authority.file)
        proxy.tls.load_cert_chain(files.certificate, files.key)
        listening = await asyncio.start_server(proxy._serve, "127.0.0.1", 0, ssl=proxy.tls, backlog=1024)
        proxy.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        try:
            while not writer.is_closing():
                request = await read_request(reader)
                fault = self._fault_for(request)
                if fault is not None:
                    await fault(writer)
                else:
                    upstream = upstream or await self._connect()
                    upstream[1].write(self._altered(request))
                    await self._pass_on(request, upstream[0], writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side has gone
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].close()

    def _fault_for(self, request: bytes) -> Reply | None:
        if _TOKEN_REQUEST.match(request) is None:
            return None
        if _TRIAL in request:
            self.trials += 1
            return None
        self.mints += 1
        return self.fault

    def _altered(self, request: bytes) -> bytes:
        """Return what is passed on of a request."""
        return request

    async def _pass_on(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the answer to a request on."""
        del request
        await relay(reader, writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        server = urlsplit(self._server.server)
        tls = ssl.create_default_context(cafile=str(self._server.ca_file))
        return await asyncio.open_connection(server.hostname, server.port or 443, ssl=tls)


class HoldingProxy(FaultProxy):
    """Keeps the answers to callers' TokenRequests back while ``open`` is not set: the tokens are minted."""

    def __init__(self, server: Server, ca_file: Path) -> None:
        super().__init__(server, ca_file)
        self.open = asyncio.Event()
        self.open.set()

    async def _pass_on(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if _TOKEN_REQUEST.match(request) is not None and _TRIAL not in request:
            await self.open.wait()
        await super()._pass_on(request, reader, writer)


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event | None = None
) -> None:
    """Pass one answer on as it comes, its chunks while ``passing`` is set; a watch is one that does not end."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(head)
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        await _relay_chunks(reader, writer, passing)
    else:
        length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        writer.write(await reader.readexactly(int(length[1]) if length else 0))
    await writer.drain()


async def _relay_chunks(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event | None
) -> None:
    size = 1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line, 16)
        chunk = line + await reader.readexactly(size + 2)
        if passing is not None:
            await passing.wait()
        writer.write(chunk)
        await writer.drain()


@dataclass(frozen=True, slots=True)
class Behind:
    """A broker behind the proxy, and a client that it serves."""

    cluster: Cluster
    proxy: FaultProxy
    broker: BrokerProcess
    client: Registered

    async def ask(self) -> Answered:
        """Ask for a token."""
        return await self.broker.call("POST", "/v1/tokens", {}, auth=self.client.auth)

    async def works(self) -> bool:
        """Tell whether a token is handed out."""
        return (await self.ask()).status == 200

    async def counts(self) -> dict[str, float]:
        """Return the counters that requests for tokens move."""
        lines = (line.rpartition(" ") for line in (await self.broker.metrics()).splitlines())
        names = tuple(f"tokenbroker_{name}_total{{" for name in COUNTED)
        return {name: float(value) for name, _, value in lines if name.startswith(names)}

    def issued(self) -> int:
        """Return how many tokens were recorded as handed out."""
        return self.broker.audit_file.read_text().count('"token.issued"')

    async def minted(self, account: str = "reader", audience: str = "", secret: str = "anchor") -> tuple[str, bytes]:
        """Return a token of the API server's own and the TokenRequest it stands in; with defaults, what is asked for.

        ``secret`` is what it is bound to: the client's ``anchor``, ``another`` Secret, or nothing.
        """
        spec: dict[str, object] = {"expirationSeconds": 900, "audiences": [audience] if audience else []}
        if secret:
            spec["boundObjectRef"] = await self._secret(secret)
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        status, body = await self.cluster.request("POST", path, {"spec": spec})
        assert status == 201
        return body["status"]["token"], json.dumps(body).encode()

    async def _secret(self, which: str) -> dict[str, object]:
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets"
        if which == "anchor":
            _, listed = await self.cluster.request("GET", f"{path}?labelSelector=tokenbroker.dev/anchor%3Dgrant")
            metadata = listed["items"][0]["metadata"]
        else:
            _, made = await self.cluster.request("POST", path, {"metadata": {"generateName": "another-"}})
            metadata = made["metadata"]
        return {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}
