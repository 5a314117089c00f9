"""The connection of a caller: aiohttp's, but for what it says about requests that are not HTTP."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from aiohttp import web

from broker.services.storms.gate import caller

log = structlog.get_logger(__name__)

Malformed = Callable[[web.BaseRequest, int], web.Response]
"""Answers a request that aiohttp refuses with a status of its own."""


MAX_HEAD_BYTES = 32 * 1024
"""How much of a request may come before its headers end: aiohttp bounds each of them and their number, and would keep a
megabyte for each caller who never ends them."""

HungUp = Callable[[object], None]
"""Is told of a caller that went, as :data:`broker.services.storms.gate.caller` names it."""


class Parting:
    """Whether the broker is about to go: then each answer is the last one on its connection."""

    def __init__(self) -> None:
        self.begun = False


class CallerConnection(web.RequestHandler):
    """Neither answers nor logs quote what a caller sent: a broken header may be the one with the credential."""

    def __init__(
        self,
        server: web.Server,
        malformed: Malformed,
        parting: Parting,
        hung_up: HungUp,
        gone: "Callable[[CallerConnection], None]",
        **options: Any,
    ) -> None:
        super().__init__(server, access_log=None, **options)  # type: ignore[arg-type] # None is what aiohttp documents
        self._malformed = malformed
        self._parting = parting
        self._hung_up = hung_up
        self._gone = gone
        self._who = object()
        """Stands for the caller in the context of its requests, which must not have the connection: it has them."""
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take what came; hang up on who goes on and on before a request can be answered."""
        super().data_received(data)
        if self._waiter is None or self._waiter.done():  # there is a request, or the rest of one is read
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and self.transport is not None:
            log.info("http.endless_headers")
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, in a context in which it is known whose requests come: aiohttp makes the tasks for them in it."""
        context = contextvars.copy_context()
        context.run(caller.set, self._who)
        context.run(super().connection_made, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Say that the caller went. aiohttp lets the request that is being answered go on."""
        super().connection_lost(exc)
        self._hung_up(self._who)
        self._gone(self)

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send an answer; with ``Connection: close`` where the broker is about to go (RFC 9112, 9.6)."""
        if self._parting.begun:
            resp.force_close()
        return super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature; it quotes the request
    ) -> web.StreamResponse:
        """Answer with a problem document and close. Raises ConnectionError where an answer is on its way already."""
        log.info("http.malformed_request", remote=request.remote, error=type(exc).__name__)
        if exc is not None:
            exc.__traceback__ = None  # its frames have the connection, and what came
        if request.writer.output_size > 0:
            raise ConnectionError("half of an answer was sent already")
        return self._malformed(request, status)

    def log_exception(self, *_args: Any, exc_info: BaseException | None = None, **_kwargs: Any) -> None:
        """Log which error it was, without its message."""
        log.error("http.connection_failed", error=type(exc_info).__name__)
