"""The calls to the API server, under the broker's own account: single ones over a pool, and watches."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from broker.kube.answer import Answer, OversizedAnswerError, timed_out, unavailable
from broker.kube.credentials import Credentials
from broker.model.duration import retry_after_seconds
from broker.model.sensitive import Sensitive
from broker.tracing import current
from broker.wire.connection import OversizedError
from broker.wire.pool import ConnectionPool
from broker.wire.target import is_target

CREDENTIALS_REFRESH_SECONDS = 30.0
"""How often the token and CA files are looked at, beside when a call is refused for what they hold.

The kubelet replaces a token at 80 % of its life."""

ACCEPT = "application/json, application/jwk-set+json;q=0.9"
"""The second is how the API server calls its own public keys."""

MAX_CONNECTIONS = 128
IDLE_SECONDS = 75.0
"""The API server closes a connection that was idle for 90 s: ours must be the shorter time."""

MAX_WATCHES = 8
MAX_LINE_BYTES = 64 * 1024 * 1024

_IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
"""RFC 9110, 9.2.2."""


class KubeSession:
    """Calls to the API server: pooled, with a deadline on each, never through a proxy of the environment.

    The files of the token, which is stripped, and of the CA are read again every 30 s, and at once where the API server
    does not take the token (401) or is not vouched for: then the call is made again if they hold something else.
    """

    def __init__(self, server: str, ca_file: Path, token_file: Path, timeout_seconds: float) -> None:
        self.server = server.rstrip("/")
        self._host, self._prefix = urlsplit(self.server)[1:3]
        self._credentials = Credentials(ca_file, token_file)
        self._timeout = timeout_seconds
        self._headers: dict[str, str] = {}
        self._head = b""
        self._pool = ConnectionPool(
            self.server, self._credentials.tls, Answer, limit=MAX_CONNECTIONS, idle_seconds=IDLE_SECONDS
        )
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.refresh()
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_WATCHES, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._pool.close()
        if self._client is not None:
            await self._client.close()

    @property
    def token(self) -> str:
        """The broker's own token, as last read."""
        return self._credentials.token

    def refresh(self) -> None:
        """Read the token and CA files again. Raises OSError where they are gone or hold something else."""
        try:
            self._credentials.refresh()
        finally:
            self._use_credentials()

    def _use_credentials(self) -> None:
        authorization = f"Bearer {self._credentials.token}"
        self._headers = {"Authorization": authorization, "Accept": ACCEPT, "User-Agent": "tokenbroker"}
        self._head = self._head_of({})
        self._pool.trust(self._credentials.tls)

    def _look_again(self) -> None:
        self._credentials.look_again()
        self._use_credentials()

    async def refresh_forever(self) -> None:
        """Keep credentials and connections current until cancelled; a file that is gone for a moment is tried again."""
        while True:
            await asyncio.sleep(CREDENTIALS_REFRESH_SECONDS)
            self._pool.close_idle()
            try:
                self.refresh()
            except OSError:
                continue  # kubelet swaps the files; the old credentials serve until the new ones are there

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
        repeatable: bool = False,
        bearer: Sensitive | None = None,
        accept: str = "",
        largest: int | None = None,
    ) -> Answer:
        """Make one call and return its answer, whatever its status.

        ``bearer`` is whose call it is, where it is not the broker's own. ``largest`` is how many bytes of an answer are
        read, where that is less than of others.
        ``path`` starts with a slash and is already encoded. A ``repeatable`` call is made again, once, where the
        server closed the connection before it answered anything; one that is not might have been carried out.
        Raises BrokerError: kubernetes_unavailable where the connection or the answer breaks, kubernetes_timeout
        past the deadline. The first is an :class:`OversizedAnswerError` where the answer is too large to be read.
        """
        changed = {"Authorization": f"Bearer {bearer.reveal()}"} if bearer else {}
        changed |= {"Accept": accept} if accept else {}
        trace = current()
        changed |= {"traceparent": trace.header()} if trace is not None else {}
        payload = b"" if body is None else orjson.dumps(body)
        request = partial(self._request, method, path, payload, content_type, changed)
        deadline = asyncio.get_running_loop().time() + self._timeout
        exchange = partial(
            self._pool.exchange, deadline=deadline, repeatable=repeatable or method in _IDEMPOTENT, largest=largest
        )
        try:
            return await (self._accepted(request, exchange) if bearer is None else exchange(request()))
        except TimeoutError:
            raise timed_out(self._timeout) from None
        except OversizedError:
            raise OversizedAnswerError from None
        except OSError as error:
            raise unavailable(str(error) or type(error).__name__) from None

    async def _accepted(self, request: Callable[[], bytes], exchange: Callable[[bytes], Awaitable[Answer]]) -> Answer:
        """Return the answer to a request with the broker's own credentials, or with those that are in the files now.

        One that was answered 401 was not carried out, whatever its method.
        """
        used = self._credentials.version
        try:
            answer = await exchange(request())
        except ssl.SSLCertVerificationError:
            if not self._renewed(used):
                raise
        else:
            if answer.status != 401 or not self._renewed(used):  # noqa: PLR2004 - 401 Unauthorized
                return answer
        return await exchange(request())

    def _renewed(self, used: int) -> bool:
        """Tell whether other credentials can be had than those of that version."""
        self._look_again()
        return self._credentials.version != used

    def _head_of(self, changed: Mapping[str, str]) -> bytes:
        lines = {"Host": self._host, **self._headers, **changed}.items()
        return "".join(f"{name}: {value}\r\n" for name, value in lines).encode()

    def _request(self, method: str, path: str, body: bytes, content_type: str, changed: Mapping[str, str]) -> bytes:
        head = self._head_of(changed) if changed else self._head
        start = (_start_again if path.endswith("/token") else _start)(method, self._prefix, path)
        length = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        return b"".join((start, head, length, body))

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and yield its lines. Whoever reads them sets the deadline between two.

        Raises BrokerError like :meth:`call`, and :class:`Gone` when the server wants a new list (410).
        """
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._open().get(
                    URL(self.server + path, encoded=True),
                    headers=self._headers,
                    ssl=self._credentials.tls,
                    allow_redirects=False,
                )
        except TimeoutError:
            raise timed_out(self._timeout) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            self._look_again()
            raise unavailable(type(error).__name__) from None
        try:
            if response.status == 401:  # noqa: PLR2004 - 401 Unauthorized
                self._look_again()
            await _check_stream(response, self._timeout)
            yield _lines(response)
        finally:
            response.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._client is None:
            raise RuntimeError("the session is used before it was entered")
        return self._client


def _start(method: str, prefix: str, path: str) -> bytes:
    """Return a request's first line."""
    if not is_target(path):
        raise ValueError(f"{path!r} is not an encoded path")
    return f"{method} {prefix}{path} HTTP/1.1\r\n".encode()


_start_again = lru_cache(maxsize=4096)(_start)
"""For TokenRequests: theirs come again and again, and those that name an anchor hardly ever."""


class Gone(Exception):  # noqa: N818 - HTTP's and Kubernetes' own word
    """The resource version is too old: list again."""


async def _check_stream(response: aiohttp.ClientResponse, seconds: float) -> None:
    if response.status == 410:  # noqa: PLR2004 - 410 Gone
        raise Gone
    if response.status != 200:  # noqa: PLR2004 - 200 OK
        answer = Answer(response.status, await _said(response, seconds))
        later = retry_after_seconds(response.headers.get("Retry-After", ""))
        raise unavailable(f"watch answered {answer.message()}", later)


async def _said(response: aiohttp.ClientResponse, seconds: float) -> bytes:
    """Return what a refusal says, or nothing where that breaks off or is late: its status has come."""
    try:
        async with asyncio.timeout(seconds):
            return await response.content.read(65536)
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        _let_go(error)
        return b""


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # aiohttp's own line reader stops at 128 KiB; a TokenClient with many managed fields can be larger.
    rest = b""
    try:
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line
            if len(rest) > MAX_LINE_BYTES:
                raise unavailable("a line of the watch is too long")
    except (aiohttp.ClientError, ConnectionError) as error:
        _let_go(error)
        raise unavailable(type(error).__name__) from None


def _let_go(error: Exception) -> None:
    """Cut off what an error came through: aiohttp's connection keeps the error, and these frames lead back to it."""
    error.__traceback__ = None
