"""GET from an issuer: bounded in size and time, no redirects, no proxy of the environment, no compression."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

MAX_BYTES = 256 * 1024
DEADLINE_SECONDS = 5.0
DISCOVERY = "/.well-known/openid-configuration"


class Web:
    """The one HTTP session to all issuers."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=16, limit_per_host=2),
            timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"User-Agent": "tokenbroker", "Accept": "application/json"},
            skip_auto_headers=("Accept-Encoding",),
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, tls: ssl.SSLContext) -> bytes:
        """Return the body of a 200. Raises OSError or ValueError."""
        if self._session is None:
            raise RuntimeError("the session is used before it was entered")
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                async with self._session.get(url, ssl=tls, allow_redirects=False) as response:
                    return await _body(url, response)
        except TimeoutError:
            raise OSError(f"{url} did not answer within {DEADLINE_SECONDS:g} s") from None
        except aiohttp.ClientError as error:
            raise OSError(f"{url}: {error}") from None


async def _body(url: str, response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:  # noqa: PLR2004 - 200 OK
        raise ValueError(f"{url} answered {response.status}; redirects are not followed")
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_BYTES:
            raise ValueError(f"{url} answered more than {MAX_BYTES} bytes")
    return bytes(data)


class WebKeys:
    """An issuer's keys from the web, found by discovery where the operator names no ``jwks_uri``.

    Discovery (OpenID Connect Discovery 1.0, section 4) counts only where the document is the issuer's own, and
    leads to the issuer's own origin: an issuer cannot send the broker anywhere else, such as into the network
    that it runs in. Where the keys live elsewhere, the operator says so.
    """

    def __init__(self, web: Web, issuer: str, jwks_uri: str | None, ca_file: Path | None) -> None:
        self._web = web
        self._issuer = issuer
        self._jwks_uri = jwks_uri
        self._ca_file = ca_file

    async def __call__(self) -> bytes:
        """Return the JWK set; see :class:`broker.identity.key_set.KeySource`."""
        tls = ssl.create_default_context(cafile=self._ca_file)
        return await self._web.get(self._jwks_uri or await self._discovered(tls), tls)

    async def _discovered(self, tls: ssl.SSLContext) -> str:
        document = json.loads(await self._web.get(self._issuer.rstrip("/") + DISCOVERY, tls))
        return jwks_uri(document, self._issuer)


class FileKeys:
    """An issuer's keys from a file, for issuers that the broker cannot reach."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def __call__(self) -> bytes:
        """Return the JWK set; see :class:`broker.identity.key_set.KeySource`."""
        with self._file.open("rb") as opened:
            return opened.read(MAX_BYTES)


def jwks_uri(document: Any, issuer: str) -> str:
    """Return where a discovery document says that the keys are. Raises ValueError."""
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise ValueError("the discovery document is another issuer's")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str) or urlsplit(uri)[:2] != urlsplit(issuer)[:2]:
        raise ValueError("the discovery document leads to another origin: name its jwks_uri in the configuration")
    return uri
