"""The connections to the API server and to Vault, against a server that misbehaves."""

import asyncio
import ssl

import pytest

from broker.kube.answer import Answer
from broker.wire import connection as wire
from broker.wire.connection import BrokenError
from broker.wire.pool import ConnectionPool
from tests.support.scripted import Reply, answer, floods, resets, says, says_and_closes, scripted

REQUEST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = says(answer(201, b'{"a": 1}'))


def _pool(url: str, *, limit: int = 128, idle_seconds: float = 75.0) -> ConnectionPool[Answer]:
    return ConnectionPool(url, ssl.create_default_context(), Answer, limit=limit, idle_seconds=idle_seconds)


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def _ask(pool: ConnectionPool[Answer], *, repeatable: bool = False) -> tuple[int, bytes]:
    got = await pool.exchange(REQUEST, _in(5), repeatable=repeatable)
    return got.status, got.body


async def test_one_connection_serves_one_request_after_the_other() -> None:
    """What was answered in full leaves its connection for the next request."""
    async with scripted(OK, OK, says(answer(404, b""))) as server:
        pool = _pool(server.url)
        got = [await _ask(pool) for _ in range(3)]

    assert got == [(201, b'{"a": 1}'), (201, b'{"a": 1}'), (404, b"")]
    assert server.connections == 1
    assert server.requests == [REQUEST] * 3


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    """No request waits behind another one, and no answer reaches the wrong one."""
    async with scripted(*(says(answer(201, b"%d" % n)) for n in range(8))) as server:
        pool = _pool(server.url)
        got = await asyncio.gather(*(_ask(pool) for _ in range(8)))

    assert sorted(body for _, body in got) == [b"%d" % n for n in range(8)]
    assert server.connections == 8


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (says(*(bytes([octet]) for octet in answer(200, b"abc"))), (200, b"abc")),
        (says(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(201, b"ab")), (201, b"ab")),
        (says(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", answer(200, b"ab")), (200, b"ab")),
        (says(b"HTTP/1.1 204 No Content\r\n\r\n"), (204, b"")),
        (
            says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"),
            (200, b"abc"),
        ),
        (says(answer(302, b"", [b"Location: http://127.0.0.1:1/"])), (302, b"")),
    ],
    ids=["byte by byte", "continue", "early hints", "no content", "chunked", "redirect"],
)
async def test_unusual_answers_are_understood(reply: Reply, expected: tuple[int, bytes]) -> None:
    """What HTTP allows is read as HTTP says, and the connection serves on."""
    async with scripted(reply, OK) as server:
        pool = _pool(server.url)
        got = await _ask(pool)
        following = await _ask(pool)

    assert got == expected
    assert following == (201, b'{"a": 1}')
    assert server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        says_and_closes(),
        resets(),
        says_and_closes(b"HTTP/1.1 20"),
        says_and_closes(b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n"),
        says_and_closes(b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\nhalf"),
        says_and_closes(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha"),
        says_and_closes(b"HTTP/1.1 201 Created\r\n\r\nan end that nothing marks"),
        says(b"220 mail.example.com ESMTP\r\n"),
        says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        says(b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        says(b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na"),
        floods(b"HTTP/1.1 100 Continue\r\n\r\nX"),
    ],
    ids=[
        "closed",
        "reset",
        "half a status line",
        "half the headers",
        "half the body",
        "half a chunk",
        "no length",
        "mail",
        "TLS",
        "upgrade",
        "two lengths",
        "length and chunks",
        "nonsense after an interim answer",
    ],
)
async def test_half_answers_and_nonsense_are_no_answers(reply: Reply) -> None:
    """Whatever is not a whole answer is an error, and the next request has a new connection."""
    async with scripted(reply, OK) as server:
        pool = _pool(server.url)
        with pytest.raises(BrokenError):
            await _ask(pool)
        following = await _ask(pool)

    assert following == (201, b'{"a": 1}')
    assert server.connections == 2
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1000 + b"\r\n"),
        (CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
    ],
    ids=["headers", "body"],
)
async def test_endless_answers_are_cut_off(start: bytes, part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server fills the broker's memory."""
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 1_000_000)

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await floods(part)(writer)

    async with scripted(reply) as server:
        with pytest.raises(BrokenError, match="too large"):
            await _ask(_pool(server.url))


async def test_large_answer_is_read_whole() -> None:
    """A page of a list takes more room than headers may."""
    body = b"x" * 400_000
    async with scripted(says(answer(200, body))) as server:
        assert await _ask(_pool(server.url)) == (200, body)


async def test_interim_answer_leaves_nothing_behind() -> None:
    """Headers of a 1xx are not those of the answer."""
    interim = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
    async with scripted(says(interim + answer(503))) as server:
        got = await _pool(server.url).exchange(REQUEST, _in(5), repeatable=False)

    assert (got.status, got.retry_after) == (503, None)


async def test_answer_with_nonsense_behind_it_is_not_believed() -> None:
    """Where the bytes after an answer are no HTTP, nobody knows what the bytes before were."""
    async with scripted(says(answer(201) + b"nonsense\r\n\r\n")) as server:
        with pytest.raises(BrokenError, match="not HTTP"):
            await _ask(_pool(server.url))


async def test_connections_that_the_server_closed_are_forgotten() -> None:
    """A server that restarts often leaves nothing behind in the broker."""
    async with scripted(says_and_closes(answer(200))) as server:
        pool = _pool(server.url)
        await _ask(pool)
        await asyncio.wait_for(server.closed.get(), 5)
        async with asyncio.timeout(5):
            while pool._all:
                await asyncio.sleep(0.01)
                pool.close_idle()

    assert pool._idle == []


@pytest.mark.parametrize("reply", [says_and_closes(), resets()], ids=["closed", "reset"])
async def test_stale_connection_is_replaced_for_what_may_be_repeated(reply: Reply) -> None:
    """A server that closes an idle connection just as a request comes costs that request nothing."""
    async with scripted(OK, reply, OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        got = await _ask(pool, repeatable=True)

    assert got == (201, b'{"a": 1}')
    assert server.connections == 2
    assert len(server.requests) == 3


async def test_what_may_not_be_repeated_is_not() -> None:
    """Nobody knows whether the server has carried it out."""
    async with scripted(OK, resets(), OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        with pytest.raises(BrokenError):
            await _ask(pool)

    assert len(server.requests) == 2


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["a byte", "an interim answer"])
async def test_nothing_is_repeated_after_the_first_byte_of_an_answer(part: bytes) -> None:
    """A server that began to answer has carried the request out."""
    async with scripted(OK, says_and_closes(part), OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        with pytest.raises(BrokenError):
            await _ask(pool, repeatable=True)

    assert len(server.requests) == 2


async def test_a_new_connection_is_not_tried_twice() -> None:
    """A server that closes every connection gets two requests at most for one."""
    async with scripted(resets(), OK, resets(), resets(), OK) as server:
        pool = _pool(server.url)
        with pytest.raises(BrokenError):
            await _ask(pool, repeatable=True)
        await _ask(pool)
        with pytest.raises(BrokenError):
            await _ask(pool, repeatable=True)

    assert len(server.requests) == 4


async def test_connection_that_the_server_closes_while_idle_is_not_used() -> None:
    """Where the loop has seen the end, no request is risked."""
    async with scripted(says(answer(200)), OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        (idle,) = pool._idle
        idle.connection_lost(None)
        got = await _ask(pool)

    assert got == (201, b'{"a": 1}')
    assert server.connections == 2


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_connection_that_is_closing_is_not_used(end: str) -> None:
    """The loop reads the server's end of a connection a turn before it says that the connection is lost."""
    async with scripted(OK, OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        (idle,) = pool._idle
        getattr(idle._transport, end)()
        got = await _ask(pool)

    assert got == (201, b'{"a": 1}')
    assert server.connections == 2
    assert len(server.requests) == 2


async def test_closing_connection_takes_no_request() -> None:
    """What would never be sent is known to have got no answer, at once."""
    async with scripted(OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        (idle,) = pool._idle
        assert idle._transport is not None
        idle._transport.close()
        with pytest.raises(BrokenError, match="is closed") as caught:
            await idle.exchange(REQUEST, _in(5))

    assert caught.value.unanswered


@pytest.mark.parametrize(
    "reply",
    [
        says(answer(200, headers=[b"Connection: close"])),
        says(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        says(answer(200) + answer(200, b'{"from": "elsewhere"}')),
    ],
    ids=["close", "HTTP/1.0", "two answers"],
)
async def test_connection_that_must_end_is_not_used_again(reply: Reply) -> None:
    """The answer counts; the connection does not carry another request."""
    async with scripted(reply, OK) as server:
        pool = _pool(server.url)
        first = await _ask(pool)
        second = await _ask(pool)

    assert first == (200, b"{}")
    assert second == (201, b'{"a": 1}')
    assert server.connections == 2


async def test_answer_that_nobody_asked_for_reaches_nobody() -> None:
    """What a server sends on an idle connection cannot become the answer to the next request."""
    late = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200))
        await late.wait()
        writer.write(answer(200, b'{"for": "somebody else"}'))

    async with scripted(reply, OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        late.set()
        await asyncio.wait_for(server.closed.get(), 5)
        got = await _ask(pool)

    assert got == (201, b'{"a": 1}')


async def test_given_up_request_takes_its_connection_along() -> None:
    """A late answer to a request that was given up must not meet the next one."""
    async with scripted() as server:
        pool = _pool(server.url)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.exchange(REQUEST, _in(5), repeatable=True)
        await asyncio.wait_for(server.closed.get(), 5)

    assert len(server.requests) == 1
    assert pool._idle == []
    assert pool._all == set()


async def test_answer_that_comes_too_late_is_given_up() -> None:
    """The deadline holds, also when bytes keep dripping in, and the connection is not used again."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"X")
            await asyncio.sleep(0.01)

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED.removesuffix(b"\r\n") + b"X-Slow: ")
        await drip(writer)

    async with scripted(reply, OK) as server:
        pool = _pool(server.url)
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await pool.exchange(REQUEST, _in(0.1), repeatable=True)
        took = asyncio.get_running_loop().time() - started
        following = await _ask(pool)

    assert 0.09 < took < 2
    assert following == (201, b'{"a": 1}')
    assert server.connections == 2


async def test_waiting_for_a_turn_ends_at_the_deadline() -> None:
    """Requests that never got their turn are given up as well, and their turns are not lost."""
    async with scripted() as server:
        pool = _pool(server.url, limit=1)
        asked = [pool.exchange(REQUEST, _in(0.1), repeatable=True) for _ in range(3)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        server.replies.append(OK)
        following = await _ask(pool)

    assert [type(outcome) for outcome in outcomes] == [TimeoutError] * 3
    assert len(server.requests) == 2
    assert following == (201, b'{"a": 1}')


async def test_server_that_does_not_shake_hands_is_given_up() -> None:
    """A TLS handshake that is never answered costs no more than the deadline."""
    async with scripted() as server:
        pool = _pool(server.url.replace("http:", "https:"))
        with pytest.raises(TimeoutError):
            await pool.exchange(REQUEST, _in(0.1), repeatable=True)


async def test_requests_beyond_the_bound_wait_for_their_turn() -> None:
    """A server never has more connections of the broker's than the bound."""
    async with scripted(*(OK for _ in range(10))) as server:
        pool = _pool(server.url, limit=2)
        await asyncio.gather(*(_ask(pool) for _ in range(10)))

    assert server.connections == 2


async def test_old_idle_connections_are_closed() -> None:
    """After a storm the connections go, before the server would close them on a request."""
    async with scripted(*(says(answer(201, b"%d" % n)) for n in range(3)), OK) as server:
        pool = _pool(server.url)
        await asyncio.gather(*(_ask(pool) for _ in range(3)))
        pool.close_idle()
        kept = len(pool._idle)
        pool._idle_seconds = -1.0
        pool.close_idle()
        for _ in range(3):
            await asyncio.wait_for(server.closed.get(), 5)
        await _ask(pool)

    assert kept == 3
    assert server.connections == 4


async def test_old_idle_connection_is_not_used() -> None:
    """The server may close it just now."""
    async with scripted(OK, OK) as server:
        pool = _pool(server.url)
        await _ask(pool)
        pool._idle_seconds = -1.0
        await _ask(pool)

    assert server.connections == 2


async def test_renewing_lets_go_of_connections_in_use_too() -> None:
    """They carry their answers, and no request after that; those made since stay."""
    finish = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await finish.wait()
        writer.write(answer(200))

    async with scripted(slow, OK, OK) as server:
        pool = _pool(server.url)
        asking = asyncio.ensure_future(_ask(pool))
        await server.asked(1)
        pool.renew()
        finish.set()
        first = await asking
        for _ in range(2):
            await _ask(pool)

    assert first == (200, b"{}")
    assert server.connections == 2


async def test_closing_ends_requests_in_flight() -> None:
    """A session that ends leaves no connection behind."""
    async with scripted() as server:
        pool = _pool(server.url)
        asking = asyncio.ensure_future(_ask(pool))
        await server.asked(1)
        pool.close()
        with pytest.raises(BrokenError):
            await asking
        await asyncio.wait_for(server.closed.get(), 5)


async def test_server_that_is_not_there_is_an_os_error() -> None:
    """Whoever calls translates it; there is no other kind of failure."""
    async with scripted() as server:
        url = server.url
    with pytest.raises(OSError, match="Connect call failed"):
        await _ask(_pool(url))
