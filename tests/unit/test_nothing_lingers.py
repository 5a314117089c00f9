"""What is over is gone at once: garbage is collected so seldom that what keeps itself would be kept for minutes."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvloop
from aiohttp import web as http
from aiohttp.test_utils import make_mocked_request

from broker.errors import BrokerError, Reason, raise_if
from broker.http.listeners import Listener
from broker.http.problems import guarded
from broker.kube.answer import Answer
from broker.model.audit_record import Origin
from broker.model.decision import Ask
from broker.model.limits import NamespaceLimits
from broker.services.bit_by_bit import FEW, bit_by_bit
from broker.services.canary import Canary
from broker.wire.connection import BrokenError, Connection
from tests.support.endings import SINGLY, WEB, EndingWorld, web
from tests.support.malformed import MALFORMED, Uncounted
from tests.support.processes import free_port, until
from tests.support.scripted import Reply, answer, hangs, says_and_closes, scripted
from tests.unit.test_canary import World

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Let nothing go but what nobody keeps."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[BrokerError]:
    """Return all errors that are made from now on, while they are there."""
    there, made = weakref.WeakSet[BrokerError](), BrokerError.__init__

    def noted(error: BrokerError, *args: Any, **kwargs: Any) -> None:
        made(error, *args, **kwargs)
        there.add(error)

    monkeypatch.setattr(BrokerError, "__init__", noted)
    return there


def _away() -> BrokerError:
    return BrokerError(Reason.KUBERNETES_UNAVAILABLE, "It is away.")


@pytest.mark.parametrize(("failure", "status"), [(_away, 503), (LookupError, 500)])
async def test_an_error_is_gone_with_its_answer(
    errors: weakref.WeakSet[BrokerError], failure: Callable[[], Exception], status: int
) -> None:
    """With the request, the proof and all else that the frames had which it went through."""

    async def fails(_request: http.BaseRequest) -> http.Response:
        raise failure()

    request = make_mocked_request("GET", "/")
    gone = weakref.ref(request)
    answered = await guarded(fails, lambda: "id", Uncounted())(request)
    del request

    assert answered.status == status
    assert (list(errors), gone()) == ([], None)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_is_gone_with_its_caller(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Those who come for one request and go are most."""
    came: list[weakref.ref[object]] = []

    async def answers(request: http.BaseRequest) -> http.Response:
        came.append(weakref.ref(request.protocol))
        return http.Response(text="hello")

    async def gone() -> bool:
        return came[0]() is None

    async def calls() -> None:
        port = free_port()
        async with Listener("api", answers, "127.0.0.1", port, malformed=MALFORMED, tls=None, drain_seconds=1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await reader.read()
            writer.close()
            await until(gone, what="the connection is gone")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(calls())


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


async def test_who_is_refused_leaves_no_error(errors: weakref.WeakSet[BrokerError]) -> None:
    """A grant that is not prepared is asked for again and again; so is a broker that may not issue."""
    world, client = EndingWorld(), web()
    for _ in range(3):
        with suppress(BrokerError):
            await world.issuer.issue(client, Ask(SINGLY), Origin("request"))
        with suppress(BrokerError):
            Canary(probe := World(), probe, probe).require()

    assert list(errors) == []


async def test_what_cannot_be_prepared_or_ended_leaves_no_error(errors: weakref.WeakSet[BrokerError]) -> None:
    """It is tried again for as long as the API server is away, or somebody has not given a right."""
    world = EndingWorld()
    world.register(web())
    await world.settle()
    for changes in ({"suspended": True}, {"suspended": False}, {"suspended": True}):
        world.cluster.delete_fault = _away()
        world.change(**changes)
        await world.settle()
    world.cluster.delete_fault = None

    assert list(errors) == []


async def test_what_the_operator_forbids_leaves_no_error(errors: weakref.WeakSet[BrokerError]) -> None:
    """Its owner may leave it so for months."""
    world = EndingWorld()
    world.limits = NamespaceLimits(max_ttl_seconds=1)
    world.register(web())
    with suppress(BrokerError):
        await world.reconciler.visit(WEB)

    assert list(errors) == []


@pytest.mark.parametrize("orphan", [True, False])
async def test_a_client_that_cannot_be_seen_off_leaves_no_error(
    errors: weakref.WeakSet[BrokerError], *, orphan: bool
) -> None:
    """Deleted while the API server cannot be reached, with its finalizer or without."""
    world = EndingWorld()
    world.register(web())
    await world.settle()
    if orphan:
        world.cluster.resources[WEB].finalizers = ()
    world.cluster.delete_fault = _away()
    world.cluster.delete_client(WEB, orphan=True)
    await world.settle()
    world.cluster.delete_fault = None

    assert list(errors) == []


def test_an_error_that_is_kept_keeps_no_frame() -> None:
    """It is a value then."""
    try:
        raise _away()
    except BrokerError as error:
        kept = error.kept()

    assert kept.__traceback__ is None
    assert kept.reason is Reason.KUBERNETES_UNAVAILABLE


def test_nothing_is_raised_where_there_is_no_error() -> None:
    """And what is raised is the error itself."""
    raise_if(None)
    error = _away()
    with pytest.raises(BrokerError) as raised:
        raise_if(error)

    assert raised.value is error
