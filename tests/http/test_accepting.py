"""Connections of callers: so many at a time, the next is refused, and nothing ends the accepting."""

import asyncio
import errno
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from broker.http.accepting import Acceptor
from broker.http.listeners import Listener
from broker.http.problems import turned_away
from broker.services.storms.gate import caller
from tests.support.certificates import tls_contexts
from tests.support.malformed import MALFORMED, Uncounted
from tests.support.processes import free_port, until

MOST = 3
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Door:
    """A listener with room for a few, and what is told of those who come."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.counted = 0
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.hung_up: list[object] = []
        self.who: object = None
        self.answered = 0

    async def answer(self, _request: web.BaseRequest) -> web.Response:
        """Answer at once, or when it is told to."""
        self.who = caller.get()
        self.began.set()
        await self.go_on.wait()
        self.answered += 1
        return web.Response(text="hello")

    def count(self) -> None:
        """Count one that was turned away."""
        self.counted += 1

    async def knock(self, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)

    async def served(self, tls: ssl.SSLContext | None = None) -> bool:
        """Tell whether a new connection gets an answer, which is its last."""
        with suppress(OSError):
            reader, writer = await self.knock(tls)
            writer.write(REQUEST)
            head = await reader.read(1024)
            writer.close()
            return head.startswith(b"HTTP/1.1 200 ")
        return False

    async def until_served(self, tls: ssl.SSLContext | None = None) -> None:
        """Wait until somebody new is served again."""
        await until(lambda: self.served(tls), what="somebody new is served")

    async def saw(self, who: object) -> bool:
        """Tell whether it was told that a caller went."""
        return who in self.hung_up

    async def has_answered(self) -> bool:
        """Tell whether a request was answered to its end."""
        return self.answered > 0


@asynccontextmanager
async def open_door(tls: ssl.SSLContext | None = None, most: int = MOST) -> AsyncIterator[Door]:
    """Run a listener."""
    door = Door(free_port())
    door.go_on.set()
    async with Listener(
        "api",
        door.answer,
        "127.0.0.1",
        door.port,
        malformed=MALFORMED,
        tls=tls,
        drain_seconds=1,
        most=most,
        turned_away=turned_away(lambda: "0123456789abcdef", Uncounted(), door.count),
        hung_up=door.hung_up.append,
    ):
        yield door


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's TLS context, and one of callers who believe anything."""
    return tls_contexts(tmp_path)


async def test_one_more_than_there_is_room_for_is_told_so() -> None:
    """503 with Retry-After and the code, without having asked for anything; when somebody goes, there is room."""
    async with open_door() as door:
        inside = [await door.knock() for _ in range(MOST)]
        reader, writer = await door.knock()
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
        inside.pop()[1].close()
        await door.until_served()
        for _, one in inside:
            one.close()

    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert {"Retry-After: 1", "Connection: close", f"Content-Length: {len(body)}"} <= set(lines)
    assert b'"code":"overloaded"' in body
    assert door.counted >= 1


async def test_under_tls_one_more_is_refused_before_the_handshake(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Which would cost more than the whole request; those who never begin theirs count."""
    server, client = contexts
    async with open_door(server) as door:
        silent = [await door.knock() for _ in range(MOST)]
        while_full = await door.served(client)
        for _, writer in silent:
            writer.close()
        await door.until_served(client)

    assert not while_full
    assert door.counted >= 1


async def test_handshakes_that_fail_take_up_no_room(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """However many did: none of them is a connection any more."""
    server, client = contexts
    async with open_door(server) as door:
        for _ in range(3 * MOST):
            reader, writer = await door.knock()
            writer.write(REQUEST)  # no TLS
            with suppress(ConnectionError):
                await reader.read()
            writer.close()
            await door.until_served(client)
        inside = [await door.knock(client) for _ in range(MOST)]
        for _, writer in inside:
            writer.close()

    assert len(inside) == MOST


async def test_who_hangs_up_while_his_request_is_answered_is_told_of() -> None:
    """By what the request knows its caller by; it goes on until somebody ends it."""
    async with open_door() as door:
        door.go_on.clear()
        _, writer = await door.knock()
        writer.write(REQUEST)
        await asyncio.wait_for(door.began.wait(), 5)
        writer.transport.abort()
        await until(lambda: door.saw(door.who), what="it is told of")
        door.go_on.set()
        await until(door.has_answered, what="the request went on")

    assert door.who is not None
    assert door.hung_up == [door.who]


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open none any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno() + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        spare.close()


async def test_a_process_out_of_file_descriptors_accepts_again_when_it_has_some() -> None:
    """Whoever waited in the meantime is served; the accepting goes on, and has said once that it could not."""
    async with open_door() as door:
        waiting = socket.socket()
        waiting.setblocking(False)  # noqa: FBT003 - the standard library's own
        with no_more_files(), capture_logs() as logs:
            await asyncio.get_running_loop().sock_connect(waiting, ("127.0.0.1", door.port))
            waiting.send(REQUEST)
            await asyncio.sleep(0.3)
            with pytest.raises(BlockingIOError):
                waiting.recv(1)
        head = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(waiting, 1024), 5)
        waiting.close()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert [(line["event"], line["error"]) for line in logs] == [("http.not_accepted", "EMFILE")]


@pytest.mark.parametrize(
    ("soft", "hard", "room", "raised"),
    [(1024, 4096, 2000, 2768), (1024, 1500, 750, 1500), (1024, 2500, 1732, 2500), (3000, 4096, 2000, 3000)],
)
def test_connections_leave_file_descriptors_for_the_rest(soft: int, hard: int, room: int, raised: int) -> None:
    """The process takes as many as it may; where that is too few for 2,000 callers, fewer are let in."""
    program = f"""
import resource
from broker.server import _room
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(_room(2000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)

    assert said.stdout.splitlines()[-1] == f"{room} {raised}"


async def test_an_address_that_is_taken_is_said_so() -> None:
    """By OSError, as the process' exit code wants it."""
    acceptor: Acceptor[asyncio.Protocol] = Acceptor(asyncio.Protocol, None, MOST, bytes)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use") as taken:
        await acceptor.open("127.0.0.1", other.getsockname()[1])

    assert taken.value.errno == errno.EADDRINUSE


async def test_it_listens_on_every_address_of_a_name() -> None:
    """Such as both of localhost, where there are two."""
    acceptor: Acceptor[asyncio.Protocol] = Acceptor(asyncio.Protocol, None, MOST, bytes)
    port = free_port()
    found = await asyncio.get_running_loop().getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    where = await acceptor.open("localhost", port)
    await acceptor.close()

    assert len(where) == len(set(found))
    with socket.create_server(("127.0.0.1", port)) as free:
        assert free.getsockname()[1] == port
