"""A thin client for JSON over HTTPS: status and body, and no opinion about either."""

import json as jsonlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

import aiohttp
from yarl import URL

JsonObject: TypeAlias = dict[str, Any]

_SECONDS = 30.0


class Rest:
    """Requests to one server, trusting one authority."""

    def __init__(self, base: str, session: aiohttp.ClientSession, tls: ssl.SSLContext) -> None:
        self._base = base.rstrip("/")
        self._session = session
        self._tls = tls

    @classmethod
    @asynccontextmanager
    async def open(cls, base: str, ca_file: Path) -> AsyncIterator[Self]:
        """Open a client for ``base``, whose certificate has to come from ``ca_file``."""
        tls = ssl.create_default_context(cafile=str(ca_file))
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield cls(base, session, tls)

    async def call(
        self, method: str, path: str, body: JsonObject | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, JsonObject]:
        """Send ``path`` exactly as it is written, with the body as JSON.

        An answer that is no JSON object comes back as ``{"text": ...}``, an empty one as ``{}``.
        Raises aiohttp.ClientError and TimeoutError.
        """
        sent = None if body is None else jsonlib.dumps(body)
        merged = {"Content-Type": "application/json", **(headers or {})} if body is not None else headers
        url = URL(self._base + path, encoded=True)
        async with self._session.request(
            method, url, data=sent, headers=merged, ssl=self._tls, allow_redirects=False
        ) as response:
            return response.status, _parsed(await response.text())

    async def answers(self, path: str, *statuses: int, headers: Mapping[str, str] | None = None) -> bool:
        """Whether a GET of ``path`` is answered with one of ``statuses``; false when nobody answers."""
        try:
            status, _ = await self.call("GET", path, headers=headers)
        except (aiohttp.ClientError, TimeoutError):
            return False
        return status in statuses


def _parsed(text: str) -> JsonObject:
    if not text:
        return {}
    try:
        parsed = jsonlib.loads(text)
    except ValueError:
        return {"text": text}
    return parsed if isinstance(parsed, dict) else {"text": text}
