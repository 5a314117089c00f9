"""The connection of a caller: aiohttp's, but for what it says about requests that are not HTTP."""

from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)

Malformed = Callable[[web.BaseRequest, int], web.Response]
"""Answers a request that aiohttp refuses with a status of its own."""


class CallerConnection(web.RequestHandler):
    """Neither answers nor logs quote what a caller sent: a broken header may be the one with the credential."""

    def __init__(self, server: web.Server, malformed: Malformed, **options: Any) -> None:
        super().__init__(server, access_log=None, **options)  # type: ignore[arg-type] # None is what aiohttp documents
        self._malformed = malformed

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature; it quotes the request
    ) -> web.StreamResponse:
        """Answer with a problem document and close. Raises ConnectionError where an answer is on its way already."""
        log.info("http.malformed_request", remote=request.remote, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("half of an answer was sent already")
        return self._malformed(request, status)

    def log_exception(self, *_args: Any, exc_info: BaseException | None = None, **_kwargs: Any) -> None:
        """Log which error it was, without its message."""
        log.error("http.connection_failed", error=type(exc_info).__name__)
