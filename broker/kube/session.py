"""The one connection pool to the API server, under the broker's own account."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from broker.errors import BrokerError, Reason

CREDENTIALS_REFRESH_SECONDS = 30.0
"""How often the token and CA files are looked at; the kubelet replaces a token at 80 % of its life."""

MAX_CONNECTIONS = 128
MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said. ``retry_after`` in seconds, None where it named none."""

    status: int
    body: bytes
    retry_after: int | None = None

    @property
    def ok(self) -> bool:
        """Tell whether the call succeeded."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own classes

    def json(self) -> Any:
        """Return the decoded body. Raises BrokerError(kubernetes_unavailable) where it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise unavailable("the API server's answer is not JSON") from None

    def message(self) -> str:
        """Return the API server's own words for a failure (a metav1.Status), or the status code."""
        try:
            status = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            status = None
        text = status.get("message") if isinstance(status, dict) else None
        return text if isinstance(text, str) else f"HTTP {self.status}"

    def detail_kind(self) -> str:
        """Return what kind of object a failure (a metav1.Status) is about, or an empty text."""
        try:
            return str(orjson.loads(self.body)["details"]["kind"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""


def unavailable(why: str, retry_after: int | None = None) -> BrokerError:
    """Return the error for an API server that cannot serve at the moment."""
    return BrokerError(
        Reason.KUBERNETES_UNAVAILABLE,
        "The Kubernetes API cannot serve at the moment.",
        operator_detail=f"The API server cannot serve at the moment: {why}.",
        retry_after=retry_after or 2,
    )


class KubeSession:
    """Calls to the API server: pooled, with a deadline on each, never through a proxy of the environment.

    The token file is read again every 30 s and stripped; a changed CA file is trusted in addition.
    """

    def __init__(self, server: str, ca_file: Path, token_file: Path, timeout_seconds: float) -> None:
        self.server = server.rstrip("/")
        self._ca_file = ca_file
        self._token_file = token_file
        self._timeout = timeout_seconds
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._ca = ca_file.read_bytes()
        self.headers: dict[str, str] = {}
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.refresh()
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=self._tls, keepalive_timeout=75),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def token(self) -> str:
        """The broker's own token, as last read."""
        return self.headers["Authorization"].removeprefix("Bearer ")

    def refresh(self) -> None:
        """Read the token and CA files again. Raises OSError where they are gone."""
        token = self._token_file.read_text(encoding="ascii").strip()
        self.headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "tokenbroker",
        }
        ca = self._ca_file.read_bytes()
        if ca != self._ca:
            self._tls.load_verify_locations(cafile=str(self._ca_file))
            self._ca = ca

    async def refresh_forever(self) -> None:
        """Keep credentials current until cancelled; a file that is gone for a moment is tried again."""
        while True:
            await asyncio.sleep(CREDENTIALS_REFRESH_SECONDS)
            try:
                self.refresh()
            except (OSError, ssl.SSLError, UnicodeDecodeError):
                continue  # kubelet swaps the files; the old credentials serve until the new ones are there

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
    ) -> Answer:
        """Make one call and return its answer, whatever its status.

        ``path`` starts with a slash and is already encoded. Raises BrokerError: kubernetes_unavailable where
        the connection or the answer breaks, kubernetes_timeout past the deadline.
        """
        data = None if body is None else orjson.dumps(body)
        headers = self.headers if content_type == "application/json" else self.headers | {"Content-Type": content_type}
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._open().request(
                    method,
                    URL(self.server + path, encoded=True),
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                return Answer(response.status, await response.read(), _retry_after(response))
        except TimeoutError:
            raise _timed_out(self._timeout) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise unavailable(type(error).__name__) from None

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and yield its lines. Whoever reads them sets the deadline between two.

        Raises BrokerError like :meth:`call`, and :class:`Gone` when the server wants a new list (410).
        """
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._open().get(
                    URL(self.server + path, encoded=True), headers=self.headers, allow_redirects=False
                )
        except TimeoutError:
            raise _timed_out(self._timeout) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise unavailable(type(error).__name__) from None
        try:
            await _check_stream(response)
            yield _lines(response)
        finally:
            response.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._client is None:
            raise RuntimeError("the session is used before it was entered")
        return self._client


class Gone(Exception):  # noqa: N818 - HTTP's and Kubernetes' own word
    """The resource version is too old: list again."""


async def _check_stream(response: aiohttp.ClientResponse) -> None:
    if response.status == 410:  # noqa: PLR2004 - 410 Gone
        raise Gone
    if response.status != 200:  # noqa: PLR2004 - 200 OK
        answer = Answer(response.status, await response.content.read(65536))
        raise unavailable(f"watch answered {answer.message()}", _retry_after(response))


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # aiohttp's own line reader stops at 128 KiB; a TokenClient with many managed fields can be larger.
    rest = b""
    try:
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line
            if len(rest) > MAX_ANSWER_BYTES:
                raise unavailable("a line of the watch is too long")
    except (aiohttp.ClientError, ConnectionError) as error:
        raise unavailable(type(error).__name__) from None


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    value = response.headers.get("Retry-After", "")
    return min(int(value), 60) if value.isascii() and value.isdigit() else None


def _timed_out(seconds: float) -> BrokerError:
    return BrokerError(
        Reason.KUBERNETES_TIMEOUT,
        "The Kubernetes API did not answer in time.",
        operator_detail=f"The API server did not answer within {seconds:g} s.",
        retry_after=2,
    )
