"""Sockets: where callers come in, with TLS from files that may change."""

import asyncio
import ssl
from pathlib import Path
from typing import Self

import structlog
from aiohttp import web

from broker.http.protocol import CallerConnection, Malformed

log = structlog.get_logger(__name__)

RELOAD_SECONDS = 5.0

LINGER_SECONDS = 1.0
"""How long the rest of a body that was refused is still read, so that its sender can see the answer."""


HANDSHAKE_SECONDS = 10.0

IDLE_SECONDS = 75.0
"""How long a connection is kept without a whole request, be it silent or dripping the headers of one."""


class TlsReloader:
    """A server context whose certificate follows its files: new handshakes use it, connections go on."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._contents()
        self.context.load_cert_chain(*self._files)

    async def run(self) -> None:
        """Look at the files every few seconds until cancelled; a pair that does not fit is not loaded."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                self.reload()
            except (OSError, ssl.SSLError) as error:
                log.warning("tls.not_reloaded", detail=f"{type(error).__name__}: {error.strerror}")

    def reload(self) -> None:
        """Load the files if they changed. Raises OSError or ssl.SSLError; the old certificate serves then."""
        contents = self._contents()
        if contents == self._seen:
            return
        # Tried out on a context of its own first: a failed load would leave the live one half changed.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
        self.context.load_cert_chain(*self._files)
        self._seen = contents
        log.info("tls.reloaded")

    def _contents(self) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in self._files)


class Listener:
    """An application on a socket. Leaving finishes the requests in flight, for ``drain_seconds`` at most."""

    def __init__(
        self,
        name: str,
        app: web.Application,
        address: str,
        port: int,
        *,
        malformed: Malformed,
        tls: ssl.SSLContext | None,
        drain_seconds: float,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._name = name
        self._address = address
        self._port = port
        self._tls = tls
        self._malformed = malformed
        self._idle_seconds = idle_seconds
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=drain_seconds)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            self._address,
            self._port,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
            backlog=1024,
        )
        addresses = [str(socket.getsockname()) for socket in self._server.sockets]
        log.info("listening", listener=self._name, addresses=addresses)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _connection(self) -> CallerConnection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("a caller came before the application was set up")
        return CallerConnection(
            server,
            self._malformed,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_seconds,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )
