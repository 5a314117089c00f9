"""What can be done to a broker's process, and to what it writes, from outside."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.support.broker import BrokerProcess
from tests.support.chaos.ledger import AuditTail
from tests.support.processes import free_port

_PAGE = 4096
_ENOUGH = 1000


@contextmanager
def limited(broker: BrokerProcess, which: int, most: int) -> Iterator[None]:
    """Let the process have no more of something (``resource.RLIMIT_...``) for the length of the block."""
    pid = broker.program.pid
    soft, hard = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, which, (soft, hard))


NO_MORE_FILES = 3
"""Every descriptor above those of the standard streams is refused; those that are open stay so."""


def open_files(broker: BrokerProcess) -> int:
    """Return how many file descriptors the process has."""
    return len([*(Path("/proc") / str(broker.program.pid) / "fd").iterdir()])


def listen(**more: Any) -> dict[str, Any]:
    """Return a section for the API's port, with a public URL."""
    port = free_port()
    return {"port": port, "public_url": f"http://127.0.0.1:{port}", **more}


async def livez(broker: BrokerProcess) -> int:
    """Ask as the kubelet does, which waits for 5 s (deploy/base/deployment.yaml)."""
    patience = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(timeout=patience) as session,
        session.get(f"{broker.ops_url}/livez") as answer,
    ):
        return answer.status


@contextmanager
def idle_connections(broker: BrokerProcess, number: int) -> Iterator[list[socket.socket]]:
    """Open connections on which nobody says anything."""
    where = urlsplit(broker.url)
    opened: list[socket.socket] = []
    try:
        opened.extend(socket.create_connection((where.hostname, where.port), timeout=5) for _ in range(number))
        yield opened
    finally:
        for one in opened:
            one.close()


class PipeTail(AuditTail):
    """The audit records that a broker writes to its standard output, a pipe that is read here, or not."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self.pipe, self._kept = folder / f"{name}.pipe", folder / f"{name}.audit"
        os.mkfifo(self.pipe)
        self._reading = os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._writing: int | None = None
        self.follow(self._kept)

    def refresh(self) -> None:
        """Read what came since."""
        if self._writing is None:
            self._drain()
        super().refresh()

    def of(self, token: str) -> list[dict[str, Any]]:
        """Return the records of a token; what went into a blocked pipe just before it was is looked for, too."""
        found = super().of(token)
        if not found and self._writing is not None:
            self._drain()
            self._fill(self._writing)
            found = super().of(token)
        return found

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Read nothing, from a pipe that is full, for the length of the block."""
        self._writing = os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK)
        self._fill(self._writing)
        try:
            yield
        finally:
            os.close(self._writing)
            self._writing = None
            self.refresh()

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._reading)

    def _drain(self) -> None:
        with self._kept.open("ab") as file, suppress(BlockingIOError):
            while data := os.read(self._reading, 65536):
                file.write(data)

    def _fill(self, writing: int) -> None:
        with suppress(BlockingIOError):
            for _ in range(_ENOUGH):
                os.write(writing, b"\n" * _PAGE)
