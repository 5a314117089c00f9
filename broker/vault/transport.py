"""HTTP to Vault or OpenBao: pooled, with a deadline on each call, and hvac's API on top of it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import orjson
from hvac.adapters import Adapter
from yarl import URL

from broker.model.duration import retry_after_seconds
from broker.model.sensitive import Sensitive
from broker.tracing import current
from broker.vault.answer import Answer, unavailable

MAX_CONNECTIONS = 16
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""A listing of some 100,000 names; nothing that the broker asks for is larger."""


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
    """Calls to one Vault. No proxy of the environment, no redirects, no cookies; a changed CA file is noticed."""

    def __init__(self, address: str, ca_file: Path | None, timeout_seconds: float) -> None:
        self._address = address.rstrip("/")
        self._ca_file = ca_file
        self._timeout = timeout_seconds
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, token: Sensitive | None = None
    ) -> Answer:
        """Make one call and return its answer, whatever its status.

        ``path`` starts with a slash and is already encoded; it is sent as it is. Raises
        BrokerError(vault_unavailable) where the connection or the answer breaks, or is too slow.
        """
        try:
            async with asyncio.timeout(self._timeout), self._request(method, path, body, token) as response:
                later = retry_after_seconds(response.headers.get("Retry-After", ""))
                return Answer(method, path, response.status, _json(await _read(response)), later)
        except TimeoutError:
            raise unavailable(
                f"Vault did not answer within {self._timeout:g} s: check its load, or raise vault.timeout_seconds."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            self._trust_new_ca(error)
            raise unavailable(
                f"Vault cannot be reached ({type(error).__name__}): check vault.address, vault.ca_file and the network."
            ) from None

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: Sensitive | None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._client is None:
            raise RuntimeError("the transport is used before it was entered")
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if token is not None:
            headers["X-Vault-Token"] = token.reveal()
        trace = current()
        if trace is not None:
            headers["traceparent"] = trace.header()
        return self._client.request(
            method,
            URL(self._address + path, encoded=True),
            data=None if body is None else orjson.dumps(body),
            headers=headers,
            # A redirect would carry the token to whatever host it names.
            allow_redirects=False,
        )

    def _trust_new_ca(self, error: Exception) -> None:
        if self._ca_file is not None and isinstance(error, aiohttp.ClientConnectorCertificateError):
            try:
                self._tls.load_verify_locations(cafile=str(self._ca_file))
            except OSError:
                return  # the file is being replaced; the next failure reads it again


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise unavailable("Vault's answer is too large: check that vault.address is Vault's.")
    return bytes(content)


def _json(content: bytes) -> Mapping[str, Any]:
    """Return an object; failures may be answered with a page of HTML, or nothing."""
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
