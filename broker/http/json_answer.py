"""The answer to nearly every request: JSON that no cache keeps, head and body in one piece.

aiohttp makes a multidict of the headers of each answer, and text of that; docs/performance.md says what it cost.
"""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import orjson
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

PLAIN: Mapping[str, str] = {"Cache-Control": "no-store", "Server": "tokenbroker"}
"""On every answer: no cache keeps it, and it does not say what the broker is made of."""

HEADERS: Mapping[str, str] = {"Content-Type": "application/json", **PLAIN}
_HEAD = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())


class JsonAnswer(web.Response):
    """200 with a JSON document. What is not the usual case (HTTP/1.0, HEAD, the end of a connection) aiohttp sends."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super(web.Response, self).__init__()
        self._document = orjson.dumps(document)
        self._whole = False

    @property
    def keep_alive(self) -> bool | None:
        """Tell whether the connection serves another request."""
        return True if self._whole else super().keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send all of it, or the head alone where this is not the usual case."""
        kept = request.keep_alive and super().keep_alive is not False
        if not kept or request.version != HttpVersion11 or request.method == "HEAD":
            self.headers.update(HEADERS)
            self.body = self._document
            return await super().prepare(request)
        self._whole = True
        date = _date(int(time.time()))
        head = f"HTTP/1.1 200 OK\r\n{_HEAD}Date: {date}\r\nContent-Length: {len(self._document)}\r\n\r\n"
        await request.writer.write(head.encode() + self._document)
        await request.writer.drain()
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send what is not sent yet."""
        if not self._whole:
            await super().write_eof(data)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Return a time in seconds since 1970 as HTTP has it (RFC 9110, 5.6.7), written once for all answers of it."""
    return formatdate(second, usegmt=True)
