"""Sockets: where callers come in, with TLS from files that may change."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self

import structlog
from aiohttp import web
from cryptography import x509

from broker.http.accepting import Acceptor
from broker.http.protocol import CallerConnection, HungUp, Malformed, Parting
from broker.http.router import Handler

log = structlog.get_logger(__name__)

RELOAD_SECONDS = 5.0

LINGER_SECONDS = 1.0
"""How long the rest of a body that was refused is still read, so that its sender can see the answer."""

IDLE_SECONDS = 75.0
"""How long a connection is kept without a whole request, be it silent or dripping the headers of one."""

MAX_CONNECTIONS = 512
"""How many there are at a time where nobody says otherwise: metrics and probes."""


class TlsReloader:
    """A server context that follows its files: new handshakes use what is there now, connections go on.

    With a ``client_ca_file`` callers may show a certificate that one of its authorities signed for TLS clients;
    another one ends the handshake. Sessions are not resumed then, so that a certificate is looked at each time.
    """

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None = None) -> None:
        self._files = (cert_file, key_file)
        self._client_ca_file = client_ca_file
        self._seen = self._contents()
        self._current = self._made()
        self.expires_at = self._expiry()
        """When the certificate that is shown expires, in seconds since 1970."""
        self.context = self._made()
        self.context.sni_callback = self._use_current

    async def run(self) -> None:
        """Look at the files every few seconds until cancelled; a pair that does not fit is not loaded."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                self.reload()
            except (OSError, ssl.SSLError) as error:
                log.warning("tls.not_reloaded", detail=f"{type(error).__name__}: {error.strerror}")

    def reload(self) -> None:
        """Load the files if they changed. Raises OSError or ssl.SSLError; what was loaded before serves then."""
        contents = self._contents()
        if contents != self._seen:
            self._current = self._made()
            self.expires_at = self._expiry()
            self._seen = contents
            log.info("tls.reloaded")

    def _use_current(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL asks this for every handshake, with or without a name: an authority can be given up, not only added.
        handshake.context = self._current

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self._files)
        if self._client_ca_file is not None:
            context.load_verify_locations(self._client_ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        return context

    def _expiry(self) -> float:
        try:
            return x509.load_pem_x509_certificate(self._files[0].read_bytes()).not_valid_after_utc.timestamp()
        except ValueError:  # OpenSSL serves some that this reader does not take
            return float("nan")

    def _contents(self) -> tuple[bytes, ...]:
        files = (*self._files, *([self._client_ca_file] if self._client_ca_file else []))
        return tuple(path.read_bytes() for path in files)


def _let_go_on(_who: object) -> None:
    """Let the request of a caller who went go on."""


class Listener:
    """A handler of requests on a socket. Leaving finishes the requests in flight, for ``drain_seconds`` at most.

    Connections beyond ``most`` are closed at once, with what ``turned_away`` returns where there is no TLS.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        address: str,
        port: int,
        *,
        malformed: Malformed,
        tls: ssl.SSLContext | None,
        drain_seconds: float,
        idle_seconds: float = IDLE_SECONDS,
        most: int = MAX_CONNECTIONS,
        turned_away: Callable[[], bytes] = bytes,
        hung_up: HungUp = _let_go_on,
    ) -> None:
        self._name = name
        self._address = address
        self._port = port
        self._malformed = malformed
        self._hung_up = hung_up
        self._idle_seconds = idle_seconds
        # aiohttp waits twice for a request, once for its handler and once for its connection, for ever where told 0.
        each = max(drain_seconds / 2, 0.001)
        self._runner = web.ServerRunner(web.Server(handler), handle_signals=False, shutdown_timeout=each)
        self._parting = Parting()
        self._acceptor = Acceptor(self._connection, tls, most, turned_away)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        addresses = await self._acceptor.open(self._address, self._port)
        log.info("listening", listener=self._name, addresses=addresses)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._acceptor.close()
        await self._runner.cleanup()

    def part(self) -> None:
        """Go on serving, and have each answer from now on be the last one on its connection.

        So callers who keep theirs come back by a new one, to a listener that stays.
        """
        self._parting.begun = True

    def _connection(self) -> CallerConnection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("a caller came before the server was set up")
        return CallerConnection(
            server,
            self._malformed,
            self._parting,
            self._hung_up,
            self._acceptor.gone,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_seconds,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )
