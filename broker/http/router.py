"""Who answers a request, by its path and its method: a handful of fixed addresses, found in one look.

aiohttp's own application is left out: its routes, middlewares and signals cost a twentieth of an issuance.
"""

from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import unquote

from aiohttp import HttpVersion11, hdrs, web

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

REQUEST_ID = web.RequestKey("request_id", str)
"""Under which a request has the id by which it is found in answers, the log and the audit log."""

ANY = "*"
"""Stands for every method that a path has no handler of its own for."""

_OPEN = "/{last}"


class Router:
    """Calls the handler of a request's path and method, or ``otherwise``; to be given to :class:`aiohttp.web.Server`.

    Paths are compared as they were sent, without their query.
    """

    def __init__(self, otherwise: Handler) -> None:
        self._otherwise = otherwise
        self._paths: dict[str, dict[str, Handler]] = {}
        self._open: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Let a handler answer. A path that ends in ``/{last}`` stands for those with any one segment there."""
        paths, path = (self._open, path.removesuffix(_OPEN)) if path.endswith(_OPEN) else (self._paths, path)
        paths.setdefault(path, {})[method] = handler

    def routes(self) -> Iterator[tuple[str, str]]:
        """Yield method and path of everything that is answered."""
        for paths, end in ((self._paths, ""), (self._open, _OPEN)):
            yield from ((method, path + end) for path, handlers in paths.items() for method in handlers)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        path = request.rel_url.raw_path
        handlers = self._paths.get(path)
        if handlers is None:
            above, _, last = path.rpartition("/")
            handlers = self._open.get(above, {}) if last else {}
        handler = handlers.get(request.method) or handlers.get(ANY)
        if handler is None:
            return await self._otherwise(request)
        if hdrs.EXPECT in request.headers:
            await _let_come(request)
        return await handler(request)


def last_segment(request: web.BaseRequest) -> str:
    """Return the last segment of a request's path, decoded: what ``{last}`` of its route stands for."""
    return unquote(request.rel_url.raw_path.rpartition("/")[2])


async def _let_come(request: web.BaseRequest) -> None:
    """Let the body come; an expectation that is not known is ignored, and any of HTTP/1.0 (RFC 9110, 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers[hdrs.EXPECT].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # no part of the answer yet
