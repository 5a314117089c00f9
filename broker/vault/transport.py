"""HTTP to Vault or OpenBao: pooled, with a deadline on each call, and hvac's API on top of it."""

import asyncio
import math
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

import orjson
from hvac.adapters import Adapter

from broker.model.sensitive import Sensitive
from broker.tracing import current
from broker.vault.answer import Answer, unavailable
from broker.vault.consistency import IndexedConnection, StorageIndex, behind
from broker.wire.connection import BrokenError, OversizedError
from broker.wire.pool import ConnectionPool
from broker.wire.target import is_target

MAX_CONNECTIONS = 16
IDLE_SECONDS = 15.0
"""Load balancers close a connection that was idle for a minute, some sooner: ours must be the shorter time."""

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""A listing of some 100,000 names; nothing that the broker asks for is larger."""

_IDEMPOTENT = frozenset({"GET", "LIST", "PUT", "DELETE"})
"""RFC 9110, 9.2.2; LIST is Vault's own."""

_REDIRECTS = range(HTTPStatus.MULTIPLE_CHOICES, HTTPStatus.BAD_REQUEST)

_LINE = re.compile(r"[ -~]*")

Send = Callable[[str, str, Mapping[str, Any] | None], Awaitable[Answer]]
"""Makes one call: method, encoded path and JSON body."""

if TYPE_CHECKING:
    _Adapter = Adapter[Awaitable[Answer]]
else:
    _Adapter = Adapter


class ApiAdapter(_Adapter):
    """Lets hvac's API classes make their calls through ``send``; what they return is to be awaited.

    Source: https://python-hvac.org/en/stable/advanced_usage.html#custom-requests-http-adapter
    """

    def __init__(self, send: Send) -> None:
        # hvac's own __init__ is left out: it opens a session of requests, which would block the loop.
        self._send = send

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,  # noqa: ARG002 - hvac's signature
        raise_exception: bool = True,  # noqa: ARG002, FBT001, FBT002 - hvac's signature
        **kwargs: Any,
    ) -> Awaitable[Answer]:
        """Return the call, not made yet."""
        return self._send(method.upper(), url, kwargs.get("json"))

    def get_login_token(self, response: Awaitable[Answer]) -> str:  # noqa: ARG002 - hvac's signature
        """Never called: hvac would keep the token in plain text."""
        raise RuntimeError("the broker logs in by itself, and keeps the token where it does not print")


class VaultTransport:
    """Calls to one Vault. No proxy of the environment, no redirects, no cookies; a changed CA file is noticed.

    What was written over it is what is read over it afterwards, whichever of several servers answers.
    """

    def __init__(self, address: str, ca_file: Path | None, timeout_seconds: float) -> None:
        address = address.rstrip("/")
        self._host, self._prefix = urlsplit(address)[1:3]
        self._ca_file = ca_file
        self._timeout = timeout_seconds
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._index = StorageIndex()
        self._pool = ConnectionPool(
            address,
            self._tls,
            _Raw,
            limit=MAX_CONNECTIONS,
            idle_seconds=IDLE_SECONDS,
            connection=partial(IndexedConnection, self._index),
        )
        self._closed_idle_at = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._pool.close()

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, token: Sensitive | None = None
    ) -> Answer:
        """Make one call and return its answer, whatever its status.

        ``path`` starts with a slash and is already encoded; it is sent as it is. Raises
        BrokerError(vault_unavailable) where the connection or the answer breaks, or is too slow.
        """
        content = b"" if body is None else orjson.dumps(body)
        deadline = asyncio.get_running_loop().time() + self._timeout
        answer = await self._ask(method, path, content, token, deadline)
        if behind(answer):
            answer = await self._ask(method, path, content, token, deadline, active=True)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _REDIRECTS:
            # Behind one address there may be a server that can: who keeps its connections keeps to the one it has.
            self._pool.renew()
        return answer

    async def _ask(
        self, method: str, path: str, body: bytes, token: Sensitive | None, deadline: float, *, active: bool = False
    ) -> Answer:
        request = self._request(method, path, body, token, self._index.sent(active=active))
        self._close_idle()
        try:
            raw = await self._pool.exchange(
                request, deadline, repeatable=method in _IDEMPOTENT, largest=MAX_ANSWER_BYTES
            )
        except TimeoutError:
            self._pool.renew()  # the server may hang, and the other connections may lead to it
            raise unavailable(
                f"Vault did not answer within {self._timeout:g} s: check its load, or raise vault.timeout_seconds."
            ) from None
        except OversizedError:
            raise unavailable("Vault's answer is too large: check that vault.address is Vault's.") from None
        except OSError as error:
            if isinstance(error, BrokenError):
                self._pool.renew()  # where one cannot be connected to, those that are there may still serve
            self._trust_new_ca(error)
            raise unavailable(
                f"Vault cannot be reached ({type(error).__name__}): check vault.address, vault.ca_file and the network."
            ) from None
        return Answer(method, path, raw.status, _json(raw.body), raw.retry_after)

    def _close_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._closed_idle_at + IDLE_SECONDS:
            self._pool.close_idle()
            self._closed_idle_at = now

    def _request(
        self, method: str, path: str, body: bytes, token: Sensitive | None, consistency: Mapping[str, str]
    ) -> bytes:
        """Return a whole request. It asks for no compression, and follows no redirect with the token to another host.

        Raises ValueError for what would not stay on its line of the request.
        """
        lines = [
            f"{method} {self._prefix}{path} HTTP/1.1",
            f"Host: {self._host}",
            "User-Agent: tokenbroker",
            "X-Vault-Request: true",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in consistency.items()),
        ]
        if token is not None:
            lines.append(f"X-Vault-Token: {token.reveal()}")
        trace = current()
        if trace is not None:
            lines.append(f"traceparent: {trace.header()}")
        if not is_target(path) or not all(map(_LINE.fullmatch, lines)):
            raise ValueError("a call to Vault that cannot be written down")
        return "\r\n".join((*lines, "", "")).encode() + body

    def _trust_new_ca(self, error: Exception) -> None:
        if self._ca_file is not None and isinstance(error, ssl.SSLCertVerificationError):
            try:
                self._tls.load_verify_locations(cafile=str(self._ca_file))
            except OSError:
                return  # the file is being replaced; the next failure reads it again


class _Raw(NamedTuple):
    """What came of one call."""

    status: int
    body: bytes
    retry_after: int | None


def _json(content: bytes) -> Mapping[str, Any]:
    """Return an object; failures may be answered with a page of HTML, or nothing."""
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
