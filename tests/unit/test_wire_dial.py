"""Connections to a host with several addresses, of which some do not answer, on both kinds of loop."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from broker.kube.answer import Answer
from broker.wire import dial as dial_module
from broker.wire.connection import Connection
from broker.wire.pool import ConnectionPool
from tests.support.certificates import Authority
from tests.support.scripted import answer, read_request, says, scripted

REQUEST = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
NAME = "several.example"
FIRST, SECOND = "127.0.0.2", "127.0.0.3"

Run = Callable[[Coroutine[Any, Any, None]], None]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def on(run: Run, scenario: Awaitable[None]) -> None:
    """Run a scenario on a loop of its own."""

    async def whole() -> None:
        await scenario

    await asyncio.to_thread(run, whole())


@pytest.fixture(autouse=True)
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the name have two addresses, in this order, as DNS may say."""

    async def known(host: str, port: int) -> list[Any]:
        assert host == NAME
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (ip, port)) for ip in (FIRST, SECOND)]

    monkeypatch.setattr(dial_module, "_addresses", known)


@contextmanager
def silent(address: str) -> Iterator[int]:
    """Take a port of an address at which nothing answers: what waits to be accepted fills its queue."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((address, 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@asynccontextmanager
async def serving(address: str, port: int = 0) -> AsyncIterator[int]:
    """Answer every request at one address with that address, and yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await read_request(reader)
                writer.write(answer(200, address.encode()))
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, address, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def pooled(port: int, scheme: str = "http") -> AsyncIterator[ConnectionPool[Answer]]:
    """Run a pool of connections to the name."""
    pool = ConnectionPool(f"{scheme}://{NAME}:{port}", ssl.create_default_context(), Answer, limit=4, idle_seconds=75)
    try:
        yield pool
    finally:
        pool.close()
        await asyncio.sleep(0.01)


async def ask(pool: ConnectionPool[Answer], seconds: float = 10) -> str:
    """Ask who answers."""
    deadline = asyncio.get_running_loop().time() + seconds
    return (await pool.exchange(REQUEST, deadline, repeatable=False)).body.decode()


def open_sockets() -> int:
    """Count this process's sockets, those too that nobody refers to any more."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the folder itself
            count += str(entry.readlink()).startswith("socket:")
    return count


@on_both_loops
async def test_an_address_that_does_not_answer_is_passed_over(run: Run) -> None:
    """The next one is tried beside it, long before the deadline."""

    async def scenario() -> None:
        with silent(FIRST) as port:
            async with serving(SECOND, port), pooled(port) as pool:
                before = open_sockets()
                assert await ask(pool) == SECOND
                assert open_sockets() - before == 2, "other than both ends of the connection"

    await on(run, scenario())


@on_both_loops
async def test_an_address_that_refuses_is_passed_over(run: Run) -> None:
    """As that of a server which is being started again."""

    async def scenario() -> None:
        async with serving(SECOND) as port, pooled(port) as pool:
            assert await ask(pool) == SECOND

    await on(run, scenario())


@on_both_loops
@pytest.mark.parametrize("given_up", ["deadline", "cancelled"])
async def test_nothing_is_left_open_where_no_address_answers(run: Run, given_up: str) -> None:
    """The deadline holds, and a caller who goes leaves nothing behind."""

    async def scenario() -> None:
        with silent(FIRST) as port:
            async with pooled(port) as pool:
                with socket.socket() as second:
                    second.bind((SECOND, port))  # and does not listen: refuses
                    before = open_sockets()
                    asking = ask(pool, 0.4) if given_up == "deadline" else asyncio.wait_for(ask(pool), 0.4)
                    with pytest.raises(TimeoutError):
                        await asking
                    await asyncio.sleep(0.01)
                    assert open_sockets() <= before

    await on(run, scenario())


@on_both_loops
async def test_nothing_is_left_open_where_the_handshake_is_never_answered(run: Run) -> None:
    """A server that is connected to but never speaks TLS is given up at the deadline."""

    async def scenario() -> None:
        with socket.socket() as listening:
            listening.bind((FIRST, 0))
            listening.listen(8)
            async with pooled(listening.getsockname()[1], "https") as pool:
                before = open_sockets()
                with pytest.raises(TimeoutError):
                    await ask(pool, 0.3)
                await asyncio.sleep(0.01)
                assert open_sockets() <= before

    await on(run, scenario())


@on_both_loops
async def test_nothing_is_left_open_where_the_loop_takes_no_socket(run: Run) -> None:
    """A connection that fails between that to the address and what is to come over it is closed as well."""

    def failing(_: object) -> Connection[Answer]:
        raise OSError("not today")

    async def scenario() -> None:
        async with serving(FIRST) as port:
            tls = ssl.create_default_context()
            pool = ConnectionPool(f"http://{NAME}:{port}", tls, Answer, limit=4, idle_seconds=75, connection=failing)
            before = open_sockets()
            with pytest.raises(OSError, match="not today") as caught:
                await ask(pool)
            await asyncio.sleep(0.05)
            assert open_sockets() <= before
            del caught

    await on(run, scenario())


@on_both_loops
async def test_a_renewed_pool_begins_with_another_address(run: Run) -> None:
    """A server that answers but cannot serve is not the first to answer for ever."""

    async def scenario() -> None:
        async with serving(FIRST) as port, serving(SECOND, port), pooled(port) as pool:
            got = []
            for _ in range(3):
                got += [await ask(pool), await ask(pool)]
                pool.renew()
        assert got == [FIRST, FIRST, SECOND, SECOND, FIRST, FIRST]

    await on(run, scenario())


@on_both_loops
async def test_a_name_is_looked_up_and_is_what_the_certificate_has_to_have(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever address it is."""
    monkeypatch.undo()
    authority = Authority.create(tmp_path, "ca")
    files = authority.server("vault")
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(files.certificate, files.key)

    async def scenario() -> None:
        async with scripted(says(answer(200, b"here")), tls=shown) as server:
            tls = ssl.create_default_context(cafile=str(authority.file))
            pool = ConnectionPool(f"https://localhost:{server.port}", tls, Answer, limit=4, idle_seconds=75)
            assert await ask(pool) == "here"
            pool.close()
            await asyncio.wait_for(server.closed.get(), 5)

    await on(run, scenario())
