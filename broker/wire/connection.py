"""One HTTP/1.1 connection to a server (RFC 9112), which carries one request at a time.

A general client's work (cookies, redirects, URLs, multipart, tracing) was the largest single cost of an issuance;
docs/performance.md has the figures. What is hard about HTTP, the parsing, is llhttp's.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Generic, Protocol, TypeVar, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from broker.model.duration import retry_after_seconds

MAX_HEAD_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Far more than a page of a list of TokenClients takes, and far less than would endanger the process."""


A = TypeVar("A")
Made = Callable[[int, bytes, int | None], A]
"""Makes an answer of its status, its body, and after how many seconds to come again, where that is said."""


class BrokenError(ConnectionError):
    """No whole answer came: the connection ended, or what came is not HTTP. The message is for operators.

    ``unanswered`` tells that not a byte of an answer came, as on a connection that the server closed while idle.
    """

    def __init__(self, why: str, *, unanswered: bool = False) -> None:
        super().__init__(why)
        self.unanswered = unanswered


class OversizedError(BrokenError):
    """The answer is larger than is read; the connection was ended before it was complete."""


class _Parser(Protocol):
    """What is used of httptools' parser, whose own annotations say less."""

    def feed_data(self, data: bytes) -> None:
        """Parse on; calls the ``on_`` methods of the connection."""

    def get_status_code(self) -> int:
        """Return the status of the answer at hand."""

    def should_keep_alive(self) -> bool:
        """Tell whether the server leaves the connection open after this answer."""


class Connection(asyncio.Protocol, Generic[A]):
    """Sends requests and collects their answers, each as ``made`` of what came."""

    def __init__(self, made: Made[A]) -> None:
        self._made = made
        self._parser: _Parser
        """There from ``connection_made`` to ``connection_lost``: it keeps this object, as this object keeps it."""
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[A] | None = None
        self._reusable = True
        self._received = 0
        self._largest = MAX_ANSWER_BYTES
        self._in_body = False
        self._retry_after: int | None = None
        self._body: list[bytes] = []
        self._complete: A | None = None
        self.idle_since = 0.0
        """When its last answer was complete, on the loop's clock."""
        self.generation = 0
        """How often its pool had been renewed when it was made."""

    @property
    def usable(self) -> bool:
        """Tell whether a request may be sent now.

        Between the server's end of a connection and the loss of it there is a turn of the loop, in which it is closing.
        """
        transport = self._transport
        return self._reusable and self._waiter is None and transport is not None and not transport.is_closing()

    @property
    def closed(self) -> bool:
        """Tell whether there is no connection any more."""
        return self._transport is None

    async def exchange(self, request: bytes, deadline: float, largest: int | None = None) -> A:
        """Send a whole request, and return its answer, of which no more than ``largest`` bytes are read.

        Raises BrokenError, and TimeoutError at the deadline, a time of the loop's clock. The connection is over
        then, and when the wait for the answer is cancelled.
        """
        if self._transport is None or self._transport.is_closing():
            raise BrokenError("the connection is closed", unanswered=True)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[A] = loop.create_future()
        self._waiter = waiter
        self._largest = largest or MAX_ANSWER_BYTES
        # A tenth of what asyncio.timeout costs.
        timer = loop.call_at(deadline, self._fail, TimeoutError())
        self._transport.write(request)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            timer.cancel()
            del waiter  # which has the error, whose traceback has this frame

    def abort(self) -> None:
        """Close at once; a request that waits for its answer gets BrokenError."""
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = cast("_Parser", HttpResponseParser(self))

    def data_received(self, data: bytes) -> None:
        """Parse on, and hand the answer over when it is complete."""
        if self._waiter is None:
            self.abort()  # nobody asked: what comes cannot be the answer to the next request
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._break(f"its answer is not HTTP ({type(error).__name__})")
        else:
            self._look()

    def _look(self) -> None:
        if self._complete is not None:
            self._hand_over(self._complete)
        elif self._received > (self._largest if self._in_body else MAX_HEAD_BYTES):
            self._fail(OversizedError("its answer is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        self._transport = None
        del self._parser
        why = f"the connection was lost ({type(exc).__name__})" if exc else "it closed the connection"
        self._break(f"{why} before its answer was complete")

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Notice a second answer to one request."""
        if self._complete is not None:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the one header that matters."""
        if name.lower() == b"retry-after":
            self._retry_after = retry_after_seconds(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Allow for a body."""
        self._in_body = True

    def on_body(self, data: bytes) -> None:
        """Collect the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Keep the answer, unless it is an interim one (1xx), after which the real one comes."""
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:
            self._forget()
            self._received = 1  # something of an answer came; there may be no end of them until the deadline
        elif self._complete is None:
            self._reusable = self._reusable and self._parser.should_keep_alive()
            self._complete = self._made(status, b"".join(self._body), self._retry_after)

    def _hand_over(self, answer: A) -> None:
        self._forget()
        self._received = 0
        self.idle_since = asyncio.get_running_loop().time()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def _break(self, why: str) -> None:
        self._fail(BrokenError(why, unanswered=not self._received))

    def _fail(self, error: OSError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self.abort()

    def _forget(self) -> None:
        self._in_body = False
        self._retry_after = None
        self._body = []
        self._complete = None
