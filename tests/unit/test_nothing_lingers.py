"""What is over is gone at once: garbage is collected so seldom that what keeps itself would be kept for minutes."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web as http
from aiohttp.client_proto import ResponseHandler
from aiohttp.test_utils import make_mocked_request

from broker.clock import SystemClock
from broker.errors import BrokerError, Reason, raise_if
from broker.http.listeners import Listener
from broker.http.problems import guarded
from broker.http.protocol import CallerConnection
from broker.kube import session
from broker.kube.answer import Answer
from broker.model.audit_record import Origin
from broker.model.decision import Ask
from broker.model.limits import NamespaceLimits
from broker.services.bit_by_bit import FEW, bit_by_bit
from broker.services.canary import Canary
from broker.wire.connection import BrokenError, Connection
from broker.wire.dial import dial
from tests.support.certificates import tls_contexts
from tests.support.endings import SINGLY, WEB, EndingWorld, web
from tests.support.gates import WIDE, a_gate
from tests.support.malformed import MALFORMED, Uncounted
from tests.support.processes import ProgramError, free_port, until
from tests.support.scripted import Reply, answer, hangs, says_and_closes, scripted
from tests.unit.test_canary import World
from tests.unit.test_kube_session import Files
from tests.unit.test_wire_dial import Run, on, on_both_loops


class Callers:
    """A listener, and the connections of those who come."""

    def __init__(self, folder: Path) -> None:
        self._server, self._client = tls_contexts(folder)
        self.came: list[weakref.ref[object]] = []

    async def come(self, sent: bytes, *, tls: bool) -> None:
        """Send something, read what comes, and go; wait until the connection is gone."""
        trust = self._client if tls else None
        async with self._open(tls=tls) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            writer.write(sent)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read()
            writer.close()
            await self._gone()

    async def come_without_handshake(self) -> None:
        """Go before the handshake."""
        async with self._open(tls=True) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await self._gone()

    @asynccontextmanager
    async def _open(self, *, tls: bool) -> AsyncIterator[int]:
        port, context = free_port(), self._server if tls else None
        async with Listener("api", _hello, "127.0.0.1", port, malformed=MALFORMED, tls=context, drain_seconds=1):
            yield port

    async def _gone(self) -> None:
        async def gone() -> bool:
            return len(self.came) == 1 and self.came[0]() is None

        with suppress(ProgramError):
            await until(gone, what="the connection is gone", seconds=2)


async def _hello(_request: http.BaseRequest) -> http.Response:
    return http.Response(text="hello")


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callers:
    """Return who notes each connection that a listener makes."""
    callers, init = Callers(tmp_path), CallerConnection.__init__

    def noted(connection: CallerConnection, *args: Any, **kwargs: Any) -> None:
        init(connection, *args, **kwargs)
        callers.came.append(weakref.ref(connection))

    monkeypatch.setattr(CallerConnection, "__init__", noted)
    return callers


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Let nothing go but what nobody keeps."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Made:
    """The errors that were made: how many, and those that are still there."""

    def __init__(self) -> None:
        self.times = 0
        self.there = weakref.WeakSet[BrokerError]()

    def lingering(self) -> list[BrokerError]:
        """Return those that are still there. Raises AssertionError where none was made, which would say nothing."""
        assert self.times > 0
        return list(self.there)


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Note all errors that are made from now on."""
    made, init = Made(), BrokerError.__init__

    def noted(error: BrokerError, *args: Any, **kwargs: Any) -> None:
        init(error, *args, **kwargs)
        made.times += 1
        made.there.add(error)

    monkeypatch.setattr(BrokerError, "__init__", noted)
    return made


async def _away(*_args: object) -> Any:
    """Fail as a call does: with a cause, of which nothing is told."""
    try:
        await _lost()
    except LookupError:
        raise BrokerError(Reason.KUBERNETES_UNAVAILABLE, "It is away.") from None


async def _lost(*_args: object) -> Any:
    raise LookupError


@pytest.mark.parametrize(("fails", "status"), [(_away, 503), (_lost, 500)])
async def test_an_error_is_gone_with_its_answer(errors: Made, fails: Callable[..., Any], status: int) -> None:
    """With the request, the proof and all else that the frames had which it went through."""
    request = make_mocked_request("GET", "/")
    gone = weakref.ref(request)
    answered = await guarded(fails, lambda: "id", Uncounted())(request)
    del request

    assert answered.status == status
    assert (errors.lingering(), gone()) == ([], None)


@on_both_loops
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"this is not HTTP\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk",
        b"",
    ],
    ids=["one request", "kept alive", "not HTTP", "a broken body", "nothing"],
)
async def test_a_connection_is_gone_with_its_caller(run: Run, callers: Callers, *, sent: bytes, tls: bool) -> None:
    """Those who come for one request and go are most; others send what is no request, or only see who is there."""
    await on(run, callers.come(sent, tls=tls))

    assert [one() for one in callers.came] == [None]


async def test_a_connection_is_gone_whose_handshake_failed(callers: Callers) -> None:
    """As those have who look which ports are open; on the loop that serves, for asyncio's own TLS keeps itself."""
    await on(uvloop.run, callers.come_without_handshake())

    assert [one() for one in callers.came] == [None]


async def _exchanged(reply: Reply) -> "weakref.ref[Connection[Answer]]":
    """Ask for something over a new connection, until it is closed."""
    loop = asyncio.get_running_loop()
    async with scripted(reply) as server:
        _, connection = await loop.create_connection(lambda: Connection(Answer), "127.0.0.1", server.port)
        with suppress(BrokenError, TimeoutError):
            await connection.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", loop.time() + 0.2)

        async def closed() -> bool:
            return connection.closed

        await until(closed, what="the connection is closed")
        return weakref.ref(connection)


@pytest.mark.parametrize(
    "reply",
    [
        says_and_closes(answer(200, b"")),
        says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        hangs(),
    ],
    ids=["answered and closed", "half of an answer", "no answer in time"],
)
async def test_a_connection_to_a_server_is_gone_when_it_is_closed(reply: Reply) -> None:
    """What it fails with has been through it."""
    connection = await _exchanged(reply)
    await asyncio.sleep(0)

    assert connection() is None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 50\r\n\r\n",
        b"",
    ],
    ids=["chunks", "half", "refused", "no answer"],
)
async def test_a_watch_that_broke_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: bytes) -> None:
    """Its connection keeps the error that it failed with, and the frames that this came through lead there."""
    came, init = list[weakref.ref[object]](), ResponseHandler.__init__

    def noted(connection: ResponseHandler, *args: Any, **kwargs: Any) -> None:
        init(connection, *args, **kwargs)
        came.append(weakref.ref(connection))

    monkeypatch.setattr(ResponseHandler, "__init__", noted)
    replies = [says_and_closes(head)] * 2  # aiohttp asks again where nothing was answered
    async with scripted(*replies) as server, Files(tmp_path).session(server.url) as kube:
        with pytest.raises(BrokerError):
            await _read(kube)
        await asyncio.sleep(0.1)

        assert [one for one in came if one() is not None] == []
        assert came


async def _read(kube: session.KubeSession) -> None:
    async with kube.stream("/x?watch=1") as lines:
        async for line in lines:
            assert line == b"{}"


@on_both_loops
async def test_who_asked_where_nobody_listens_is_gone(run: Run) -> None:
    """A server that is away is asked again and again."""

    class Caller:
        pass

    came: list[weakref.ref[Caller]] = []

    async def ask() -> None:
        caller = Caller()
        came.append(weakref.ref(caller))
        await dial("127.0.0.1", free_port(), 0)

    async def asks() -> None:
        with suppress(ConnectionRefusedError):
            await ask()

    await on(run, asks())

    assert [one() for one in came] == [None]


def test_a_connection_that_never_came_to_be_is_gone() -> None:
    """Where a handshake fails, nobody says that a connection was lost."""
    connection = Connection(Answer)
    gone = weakref.ref(connection)
    del connection

    assert gone() is None


async def test_thousands_of_keys_are_gone_when_they_are_taken() -> None:
    """With who takes them."""

    class Taker:
        def take(self, _key: int) -> None:
            """Do nothing with it."""

    taker = Taker()
    gone = weakref.ref(taker)
    bit_by_bit(taker.take, range(2 * FEW))
    del taker
    for _ in range(4):
        await asyncio.sleep(0)

    assert gone() is None


async def test_who_is_refused_leaves_no_error(errors: Made) -> None:
    """A grant that is not prepared is asked for again and again; so is a broker that may not issue."""
    world, client = EndingWorld(), web()
    with suppress(BrokerError):
        await world.issuer.issue(client, Ask(SINGLY), Origin("request"))
    assert errors.lingering() == []
    with suppress(BrokerError):
        Canary(probe := World(), probe, probe).require()

    assert errors.lingering() == []
    assert errors.times == 2


@on_both_loops
async def test_who_waited_in_vain_leaves_no_error(errors: Made, run: Run) -> None:
    """A storm is what the gate is for."""

    async def storm() -> None:
        gate = a_gate(SystemClock(), replace(WIDE, concurrency=1, wait_seconds=0.05))
        async with gate.turn("one"):
            with suppress(BrokerError):
                async with gate.turn("other"):
                    pass

    await on(run, storm())

    assert errors.lingering() == []


async def _visit(world: EndingWorld) -> None:
    with suppress(BrokerError):
        await world.reconciler.visit(WEB)


async def _served() -> EndingWorld:
    world = EndingWorld()
    world.register(web())
    await world.settle()
    return world


async def test_what_cannot_be_ended_leaves_no_error(errors: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again for as long as the API server is away, or somebody has not given a right."""
    world = await _served()
    monkeypatch.setattr(world.cluster, "delete", _away)
    world.change(suspended=True)
    await _visit(world)
    world.change(suspended=False)
    await _visit(world)

    assert errors.lingering() == []


@pytest.mark.parametrize("call", ["put", "rehearse", "ensure"])
async def test_what_cannot_be_prepared_leaves_no_error(
    errors: Made, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whichever of the calls it is that fails."""
    world = EndingWorld()
    world.register(web())
    monkeypatch.setattr(world.cluster, call, _away)
    await _visit(world)

    assert errors.lingering() == []


async def test_what_the_operator_forbids_leaves_no_error(errors: Made) -> None:
    """Its owner may leave it so for months."""
    world = EndingWorld()
    world.limits = NamespaceLimits(max_ttl_seconds=1)
    world.register(web())
    await _visit(world)

    assert errors.lingering() == []


@pytest.mark.parametrize("finalizer", [True, False])
async def test_a_client_that_cannot_be_seen_off_leaves_no_error(
    errors: Made, monkeypatch: pytest.MonkeyPatch, *, finalizer: bool
) -> None:
    """Deleted while the API server cannot be reached, with its finalizer or without."""
    world = await _served()
    if not finalizer:
        world.cluster.resources[WEB].finalizers = ()
    monkeypatch.setattr(world.cluster, "delete", _away)
    world.cluster.delete_client(WEB, orphan=True)
    await _visit(world)

    assert errors.lingering() == []


def test_nothing_is_raised_where_there_is_no_error() -> None:
    """And what is raised is the error itself."""
    raise_if(None)
    error = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "It is away.")
    with pytest.raises(BrokerError) as raised:
        raise_if(error)

    assert raised.value is error
