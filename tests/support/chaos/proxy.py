"""A proxy before the real API server, or another server, whose answers, watches and certificate can be spoiled."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from tests.support.certificates import Authority
from tests.support.fault_proxy import FaultProxy, Server, relay
from tests.support.scripted import Reply

_WATCH = re.compile(rb"GET \S*[?&]watch=1\b")


class ChaosProxy(FaultProxy):
    """Passes everything on until it is told otherwise. ``url`` and ``ca_file`` are what the broker is given."""

    def __init__(self, server: Server, ca_file: Path) -> None:
        super().__init__(server, ca_file)
        self._rules: list[tuple[re.Pattern[str], Reply]] = []
        self._rewrites: list[tuple[re.Pattern[bytes], bytes]] = []
        self._passing = asyncio.Event()
        self._passing.set()
        self._serving: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def start(cls, server: Server, folder: Path) -> AsyncIterator[Self]:
        """Listen as :meth:`FaultProxy.start` does, and close what is open on leaving."""
        async with super().start(server, folder) as proxy:
            try:
                yield proxy
            finally:
                proxy.cut()

    def hurt(self, pattern: str, reply: Reply) -> None:
        """Answer requests whose line matches from its start, such as ``POST /api/v1/.*/token``, in this way."""
        self._rules.append((re.compile(pattern), reply))

    def rewrite(self, pattern: bytes, by: bytes) -> None:
        """Replace a part of requests that are passed on."""
        self._rewrites.append((re.compile(pattern), by))

    def heal(self) -> None:
        """Answer nothing by itself any more, leave requests as they are, and let watches speak."""
        self._rules.clear()
        self._rewrites.clear()
        self._passing.set()

    def silence_watches(self) -> None:
        """Hold back all that watches say, on connections that stay open: they are half open."""
        self._passing.clear()

    def cut_watches(self) -> None:
        """End the connections of all watches in the middle."""
        for task in self._watching:
            task.cancel()

    def cut(self) -> None:
        """End all connections."""
        for task in self._serving:
            task.cancel()

    def show(self, authority: Authority) -> None:
        """Show a certificate of another authority from now on, and end all connections, as a restart does."""
        files = authority.server("proxy")
        self.tls.load_cert_chain(files.certificate, files.key)
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(super()._serve(reader, writer))
        self._serving.add(task)
        try:
            with suppress(asyncio.CancelledError):
                await task
        finally:
            self._serving.discard(task)

    def _fault_for(self, request: bytes) -> Reply | None:
        line = request.split(b"\r\n", 1)[0].decode()
        found = next((reply for pattern, reply in self._rules if pattern.match(line)), None)
        return found or super()._fault_for(request)

    def _altered(self, request: bytes) -> bytes:
        for pattern, by in self._rewrites:
            request = pattern.sub(by, request)
        return request

    async def _pass_on(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not _WATCH.match(request):
            await super()._pass_on(request, reader, writer)
            return
        self._watching.add(task)
        try:
            await relay(reader, writer, self._passing)
        finally:
            self._watching.discard(task)
