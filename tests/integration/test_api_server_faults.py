"""What callers get when the API server answers TokenRequests badly: soon, counted, and never a token."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Reply, Tenant
from tests.support.fault_proxy import NAMESPACE, Behind, FaultProxy
from tests.support.lab import Lab
from tests.support.processes import until
from tests.support.scripted import Reply as Fault
from tests.support.scripted import answer, drips, floods, hangs, resets, says, says_and_closes, scripted

DEADLINE_SECONDS = 1
GRACE_SECONDS = 1
QUEUE_SECONDS = 1
CROWD = 150
"""More than the broker has connections."""
WORDS = "upstream-words"
STATUS = json.dumps({"kind": "Status", "message": WORDS}).encode()
PAGE = b"<html>upstream-words</html>"
CREATED = b"HTTP/1.1 201 Created\r\n"
CHUNKED = CREATED + b"Transfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
UNAVAILABLE = (503, "kubernetes_unavailable")
REJECTED = (503, "kubernetes_rejected")
TIMEOUT = (504, "kubernetes_timeout")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def behind(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Behind]:
    """Run a broker that reaches the API server through the proxy, and gives it one second."""
    folder: Path = tmp_path_factory.mktemp("proxy")
    token = folder / "token"
    token.write_text(await installed.cluster.token_for("tokenbroker", "tokenbroker"))
    async with FaultProxy.start(installed.cluster, folder) as proxy:
        kubernetes = {
            "server": proxy.url,
            "ca_file": str(proxy.ca_file),
            "token_file": str(token),
            "timeout_seconds": DEADLINE_SECONDS,
        }
        queue = {"wait_seconds": QUEUE_SECONDS}
        async with BrokerProcess.start(installed, NAMESPACE, kubernetes=kubernetes, queue=queue) as broker:
            tenant = await Tenant.create(installed.cluster, NAMESPACE)
            served = Behind(installed.cluster, proxy, broker, await tenant.ready_client("reader"))
            await until(served.works, what="the broker serves the client", programs=(broker.program,))
            yield served


@pytest.fixture(autouse=True)
def _faultless_afterwards(behind: Behind) -> Iterator[None]:
    yield
    behind.proxy.fault = None


async def _hurt(behind: Behind, fault: Fault, expected: tuple[int, str], requests: int = 1) -> Reply:
    """Ask once with a fault and once without, and check all that holds for every fault."""
    issued, counts, mints = behind.issued(), await behind.counts(), behind.proxy.mints
    behind.proxy.fault = fault
    started = time.monotonic()
    reply = await behind.ask()
    took = time.monotonic() - started
    behind.proxy.fault = None

    assert (reply.status, reply.body["code"]) == expected
    assert took < DEADLINE_SECONDS + GRACE_SECONDS
    assert behind.proxy.mints - mints == requests
    assert WORDS not in str(reply)
    assert "token" not in reply.body
    assert behind.issued() == issued
    after = await behind.counts()
    assert {name: n - counts.get(name, 0) for name, n in after.items() if n != counts.get(name)} == _once(expected[1])
    assert await behind.works(), "a fault that has passed still hurts"
    return reply


def _once(reason: str) -> dict[str, float]:
    """Return by how much one failure moves the counters."""
    return {
        f'tokenbroker_token_request_failures_total{{reason="{reason}"}}': 1,
        f'tokenbroker_http_problems_total{{code="{reason}"}}': 1,
        f'tokenbroker_requests_refused_total{{client="reader",namespace="{NAMESPACE}",reason="{reason}"}}': 1,
    }


@pytest.mark.parametrize(
    ("status", "said", "retry_after"),
    [
        (429, b"7", "7"),
        (429, None, "2"),
        (429, b"0", "2"),
        (429, b"-7", "2"),
        (429, b"86400", "60"),
        (429, b"Wed, 21 Oct 2026 07:28:00 GMT", "2"),
        (500, None, "2"),
        (501, None, "2"),
        (502, None, "2"),
        (503, b"5", "5"),
        (503, None, "2"),
        (504, None, "2"),
        (507, None, "2"),
        (520, b"7", "7"),
        (401, None, "10"),
    ],
)
@pytest.mark.parametrize("body", [STATUS, PAGE], ids=["Status", "page"])
async def test_server_that_cannot_serve_is_a_503_with_its_own_time_to_wait(
    behind: Behind, status: int, said: bytes | None, retry_after: str, body: bytes
) -> None:
    """What it asks for in Retry-After is passed on within bounds; the rest of its answer is not."""
    headers = [] if said is None else [b"Retry-After: " + said]
    reply = await _hurt(behind, says(answer(status, body, headers)), UNAVAILABLE)

    assert reply.headers["Retry-After"] == retry_after


@pytest.mark.parametrize(
    ("status", "expected", "retry_after"),
    [
        (403, (503, "broker_not_authorized"), "30"),
        (404, (409, "service_account_missing"), None),
        (200, REJECTED, None),
        (204, REJECTED, None),
        (400, REJECTED, None),
        (422, REJECTED, None),
    ],
)
async def test_refusal_that_time_does_not_heal_is_told_apart(
    behind: Behind, status: int, expected: tuple[int, str], retry_after: str | None
) -> None:
    """Nobody is told to wait for what somebody has to mend first."""
    reply = await _hurt(behind, says(answer(status, b"" if status == 204 else STATUS)), expected)

    assert reply.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(says_and_closes(b"H"), id="one byte"),
        pytest.param(says_and_closes(CREATED + b"Content-Le"), id="half the headers"),
        pytest.param(says_and_closes(answer(201, STATUS)[:-4]), id="half the body"),
        pytest.param(says_and_closes(CHUNKED + b"5\r\nupst"), id="half a chunk"),
        pytest.param(says_and_closes(CREATED + b"\r\n" + STATUS), id="an end that nothing marks"),
        pytest.param(says_and_closes(b"HTTP/1.0 201 Created\r\n\r\n" + STATUS), id="as HTTP 1.0 ends"),
        pytest.param(says(b"upstream-words, but not HTTP\r\n\r\n"), id="not HTTP"),
        pytest.param(says(answer(201) + b"upstream-words\r\n\r\n"), id="nonsense behind it"),
        pytest.param(says(answer(201, PAGE)), id="a page"),
        pytest.param(says(answer(201, b"")), id="nothing"),
        pytest.param(says(answer(201, b"[]")), id="an array"),
        pytest.param(says(answer(201, b'{"status": {}}')), id="no token"),
        pytest.param(says(answer(201, b'{"status": {"token": 7}}')), id="a number"),
        pytest.param(says(answer(201, b'{"status": {"token": "upstream-words"}}')), id="no JWT"),
        pytest.param(says(answer(201, b'{"status": {"token": "a.eyJh.b"}}')), id="half a JWT"),
        pytest.param(floods(CREATED + b"X-Filler: " + b"upstream-words" * 999 + b"\r\n"), id="endless headers"),
    ],
)
async def test_half_an_answer_is_none(behind: Behind, fault: Fault) -> None:
    """Half a token is never handed out, and what the server began to answer is not asked again."""
    reply = await _hurt(behind, fault, UNAVAILABLE)

    assert reply.headers["Retry-After"] == "2"


@pytest.mark.parametrize("fault", [resets(), says_and_closes()], ids=["reset", "closed"])
async def test_server_that_hangs_up_is_asked_twice_at_most(behind: Behind, fault: Fault) -> None:
    """A kept connection may have been closed while idle; where the new one ends as well, it is the server."""
    reply = await _hurt(behind, fault, UNAVAILABLE, requests=2)

    assert reply.headers["Retry-After"] == "2"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(hangs(), id="silence"),
        pytest.param(drips(CREATED + b"X-Slow: ", b"x"), id="dripping headers"),
        pytest.param(drips(CREATED + b"Content-Length: 1000\r\n\r\n", b"x"), id="dripping body"),
        pytest.param(drips(b"", INTERIM), id="dripping 1xx"),
        pytest.param(floods(INTERIM * 100), id="endless 1xx"),
    ],
)
async def test_slow_answer_is_a_504_at_the_deadline(behind: Behind, fault: Fault) -> None:
    """Bytes that come now and then, or interim answers, do not put the deadline off."""
    reply = await _hurt(behind, fault, TIMEOUT)

    assert reply.headers["Retry-After"] == "2"


async def test_endless_body_is_cut_off(behind: Behind) -> None:
    """It ends at the bound of its size or at the deadline, whichever comes first."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await floods(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")(writer)

    mints, issued, started = behind.proxy.mints, behind.issued(), time.monotonic()
    behind.proxy.fault = endless
    reply = await behind.ask()

    assert time.monotonic() - started < DEADLINE_SECONDS + GRACE_SECONDS
    assert (reply.status, reply.body["code"]) in {UNAVAILABLE, TIMEOUT}
    assert reply.headers["Retry-After"] == "2"
    assert (behind.proxy.mints - mints, behind.issued()) == (1, issued)
    behind.proxy.fault = None
    assert await behind.works()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(behind: Behind, status: int) -> None:
    """The broker's credential does not travel to wherever an answer points."""
    async with scripted(says(answer(201))) as thief:
        away = says(answer(status, PAGE, [f"Location: {thief.url}/api/v1/x".encode()]))
        await _hurt(behind, away, REJECTED)

    assert thief.connections == 0


@pytest.mark.parametrize(
    ("account", "audience", "secret", "expected"),
    [
        ("reader", "elsewhere", "anchor", REJECTED),
        ("default", "", "anchor", REJECTED),
        ("reader", "", "another", REJECTED),
        ("reader", "", "", REJECTED),
    ],
    ids=["other audience", "other account", "bound to another Secret", "not bound"],
)
async def test_token_that_was_not_asked_for_is_thrown_away(
    behind: Behind, account: str, audience: str, secret: str, expected: tuple[int, str]
) -> None:
    """A token for other ends, however valid, reaches nobody."""
    token, body = await behind.minted(account, audience, secret)
    reply = await _hurt(behind, says(answer(201, body)), expected)

    assert token not in str(reply)
    assert token not in behind.broker.program.log.read_text()


def _in_chunks(body: bytes) -> bytes:
    return CHUNKED + b"%x;a=b\r\n%b\r\n1\r\n%b\r\n0\r\nX-After: x\r\n\r\n" % (len(body) - 1, body[:-1], body[-1:])


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda body: [answer(201, body)], id="plain"),
        pytest.param(lambda body: [_in_chunks(body)], id="chunked"),
        pytest.param(lambda body: [b"%c" % octet for octet in answer(201, body)], id="byte by byte"),
        pytest.param(lambda body: [b"HTTP/1.1 100 Continue\r\n\r\n", INTERIM, answer(201, body)], id="after 1xx"),
        pytest.param(lambda body: [answer(201, body).replace(b"HTTP/1.1", b"HTTP/1.0")], id="HTTP 1.0 with a length"),
        pytest.param(lambda body: [answer(201, body, [b"Connection: close"])], id="the last one"),
        pytest.param(lambda body: [answer(201, body) * 2], id="two answers to one request"),
    ],
)
async def test_unusual_answer_is_understood(behind: Behind, written: Callable[[bytes], list[bytes]]) -> None:
    """What HTTP allows makes a token, and nothing is left over for whoever asks next."""
    token, body = await behind.minted()
    mints, issued = behind.proxy.mints, behind.issued()
    behind.proxy.fault = says(*written(body))
    reply = await behind.ask()
    behind.proxy.fault = None
    following = await behind.ask()

    assert (reply.status, reply.body["token"]) == (200, token)
    assert following.status == 200
    assert following.body["token"] != token
    assert (behind.proxy.mints - mints, behind.issued() - issued) == (2, 2)


async def test_answer_after_the_deadline_reaches_nobody(behind: Behind) -> None:
    """A token that comes too late is not handed to whoever asks next."""
    token, body = await behind.minted()
    given_up, written = asyncio.Event(), asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await given_up.wait()
        writer.write(answer(201, body))
        written.set()

    behind.proxy.fault = late
    reply = await behind.ask()
    behind.proxy.fault = None
    given_up.set()
    await written.wait()
    following = await behind.ask()

    assert (reply.status, reply.body["code"]) == TIMEOUT
    assert following.status == 200
    assert following.body["token"] != token


@pytest.mark.parametrize("end", [says_and_closes(), resets()], ids=["closed", "reset"])
async def test_connection_that_was_closed_while_idle_costs_nobody_anything(behind: Behind, end: Fault) -> None:
    """The server ends a kept connection on the next request, as it may: that request is sent once more."""
    assert await behind.works()

    async def once(writer: asyncio.StreamWriter) -> None:
        behind.proxy.fault = None
        await end(writer)

    mints, issued = behind.proxy.mints, behind.issued()
    behind.proxy.fault = once

    assert await behind.works()
    assert (behind.proxy.mints - mints, behind.issued() - issued) == (2, 1)


@pytest.mark.parametrize(
    ("fault", "expected", "trials"),
    [(says(answer(429, STATUS)), UNAVAILABLE, 0), (says(answer(422, STATUS)), REJECTED, 50)],
    ids=["overloaded", "rejecting"],
)
async def test_many_callers_make_no_storm(behind: Behind, fault: Fault, expected: tuple[int, str], trials: int) -> None:
    """The server gets one request for each that came; a rejection may have the grant tried out, once for each."""
    mints, tried = behind.proxy.mints, behind.proxy.trials
    behind.proxy.fault = fault
    replies = await asyncio.gather(*(behind.ask() for _ in range(50)))

    assert {(reply.status, reply.body["code"]) for reply in replies} == {expected}
    assert behind.proxy.mints - mints == 50
    assert behind.proxy.trials - tried <= trials


async def test_more_callers_than_connections_are_all_answered_in_time(behind: Behind) -> None:
    """Who waits at a server that hangs waits no longer than for a turn and a call, and leaves nothing taken.

    Who has a turn waits for the API server, and who cannot have one in time is refused.
    """
    mints, started = behind.proxy.mints, time.monotonic()
    behind.proxy.fault = hangs()
    replies = await asyncio.gather(*(behind.ask() for _ in range(CROWD)))
    took = time.monotonic() - started
    behind.proxy.fault = None

    answers = {(reply.status, reply.body["code"]) for reply in replies}
    assert TIMEOUT in answers
    assert answers <= {TIMEOUT, (503, "overloaded")}
    assert all(int(reply.headers["Retry-After"]) > 0 for reply in replies if reply.status == 503)
    assert took < QUEUE_SECONDS + DEADLINE_SECONDS + 2 * GRACE_SECONDS
    assert behind.proxy.mints - mints <= CROWD
    assert await behind.works()


async def test_failure_reaches_oauth_clients_in_their_words(behind: Behind) -> None:
    """They are told that it passes, and when to come back (RFC 6749, 5.2)."""
    behind.proxy.fault = says(answer(429, STATUS, [b"Retry-After: 7"]))
    form = b"grant_type=client_credentials"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = await behind.broker.call("POST", "/oauth2/token", data=form, headers=headers, auth=behind.client.auth)

    assert (reply.status, reply.body["error"]) == (503, "temporarily_unavailable")
    assert (reply.body["code"], reply.headers["Retry-After"]) == (UNAVAILABLE[1], "7")
    assert WORDS not in str(reply)
