"""What the broker says to the API server, and what it makes of a failure."""

import asyncio
import ssl
from pathlib import Path

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer
from broker.kube.credentials import LOOK_AGAIN_SECONDS
from broker.kube.session import ACCEPT, KubeSession
from broker.model.sensitive import Sensitive
from broker.model.trace import TraceContext
from broker.tracing import following
from tests.support.certificates import Authority
from tests.support.scripted import answer, says, says_and_closes, scripted

TOKEN = "own.token"


class Files:
    """The files that the kubelet mounts."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority.create(folder, "test").file
        self.token = folder / "token"
        self.token.write_text(TOKEN + "\n")

    def session(self, server: str, seconds: float = 5.0) -> KubeSession:
        """Return a session that is not open yet."""
        return KubeSession(server, self.ca, self.token, seconds)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Make the files."""
    return Files(tmp_path)


async def test_request_is_complete(files: Files) -> None:
    """Path prefix, host, credential, types and length: nothing more is said."""
    async with scripted(says(answer(201, b"{}"))) as server, files.session(server.url + "/k8s/c1/") as session:
        got = await session.call("POST", "/api/v1/x?dryRun=All", {"a": [1]})

    lines = server.requests[0].decode().split("\r\n")
    assert got.status == 201
    assert lines[0] == "POST /k8s/c1/api/v1/x?dryRun=All HTTP/1.1"
    assert sorted(lines[1:-2]) == [
        f"Accept: {ACCEPT}",
        f"Authorization: Bearer {TOKEN}",
        "Content-Length: 9",
        "Content-Type: application/json",
        f"Host: 127.0.0.1:{server.port}",
        "User-Agent: tokenbroker",
    ]
    assert lines[-2:] == ["", '{"a":[1]}']


async def test_patch_names_its_type(files: Files) -> None:
    """A merge patch is told from other patches by its content type."""
    async with scripted(says(answer(200))) as server, files.session(server.url) as session:
        await session.call("PATCH", "/x", {}, content_type="application/merge-patch+json")

    assert b"\r\nContent-Type: application/merge-patch+json\r\n" in server.requests[0]


@pytest.mark.parametrize("path", ["", "x", "/a b", "/a\r\nX: y", "/a\n", "/\x00", "/é", "//h ost/"])
async def test_path_cannot_end_the_request_line(files: Files, path: str) -> None:
    """A name that was not encoded never becomes a header, or a second request."""
    async with scripted() as server, files.session(server.url) as session:
        with pytest.raises(ValueError, match="is not an encoded path"):
            await session.call("GET", path)

    assert server.connections == 0


async def test_a_path_is_one_also_behind_a_prefix(files: Files) -> None:
    """The address of the API server may end in one: what comes after it begins anew."""
    async with scripted() as server, files.session(f"{server.url}/clusters/a") as session:
        with pytest.raises(ValueError, match="is not an encoded path"):
            await session.call("GET", "b")

    assert server.connections == 0


async def test_replaced_token_is_used_from_then_on(files: Files) -> None:
    """The kubelet replaces the token; connections that are open already carry the new one too."""
    async with scripted(says(answer(200)), says(answer(200))) as server, files.session(server.url) as session:
        await session.call("GET", "/x")
        files.token.write_text("new.token")
        session.refresh()
        await session.call("GET", "/x")

    assert [b"Bearer new.token\r\n" in request for request in server.requests] == [False, True]
    assert session.token == "new.token"


@pytest.mark.parametrize(
    "content", ["", " \n", "two\nlines", "a token\r\nX-Remote-User: admin", "two words", "\ufeffown.token"]
)
async def test_file_that_holds_no_token_changes_nothing(files: Files, content: str) -> None:
    """What is half written, or something else, never gets into a header."""
    async with scripted(says(answer(200))) as server, files.session(server.url) as session:
        files.token.write_text(content)
        with pytest.raises(OSError, match="does not hold one token"):
            session.refresh()
        await session.call("GET", "/x")

    assert f"Bearer {TOKEN}\r\n".encode() in server.requests[0]


async def test_silent_server_is_given_up_at_the_deadline(files: Files) -> None:
    """The caller hears in time, and how long to wait."""
    async with scripted() as server, files.session(server.url, seconds=0.05) as session, asyncio.timeout(5):
        with pytest.raises(BrokerError) as refused:
            await session.call("GET", "/x")

    assert refused.value.reason is Reason.KUBERNETES_TIMEOUT
    assert refused.value.retry_after == 2


async def test_broken_answer_means_unavailable(files: Files) -> None:
    """Half an answer is none, and the operator reads why."""
    async with scripted(says_and_closes(answer(201)[:-1])) as server, files.session(server.url) as session:
        with pytest.raises(BrokerError) as refused:
            await session.call("POST", "/x", {})

    assert refused.value.reason is Reason.KUBERNETES_UNAVAILABLE
    assert "before its answer was complete" in refused.value.operator_detail


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1)])
async def test_only_what_is_idempotent_is_sent_again(files: Files, method: str, times: int) -> None:
    """RFC 9110, 9.2.2: whoever repeats another method may have it carried out twice."""
    async with (
        scripted(says(answer(200)), says_and_closes(), says(answer(200))) as server,
        files.session(server.url) as session,
    ):
        await session.call("GET", "/first")
        outcome = await asyncio.gather(session.call(method, "/x"), return_exceptions=True)

    assert len(server.requests) == 1 + times
    assert isinstance(outcome[0], BrokerError) == (times == 1)


async def test_redirect_is_an_answer_like_any_other(files: Files) -> None:
    """The credential does not travel to wherever an answer points."""
    elsewhere = scripted()
    async with elsewhere as thief:
        told = says(answer(307, b"", [f"Location: {thief.url}/x".encode()]))
        async with scripted(told) as server, files.session(server.url) as session:
            got = await session.call("GET", "/x")

    assert got.status == 307
    assert thief.connections == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"7", 7), (b"0", 0), (b"100000", None), (b"3600", 60), (b"-1", None), (b"soon", None), (b"\xb2", None)],
)
async def test_retry_after_is_taken_from_the_answer(files: Files, value: bytes, seconds: int | None) -> None:
    """A minute is the longest that callers are told to wait; dates and nonsense are left out."""
    told = says(answer(429, b"", [b"Retry-After: " + value]))
    async with scripted(told) as server, files.session(server.url) as session:
        got = await session.call("GET", "/x")

    assert got.retry_after == seconds


def test_answer_does_not_print_its_body() -> None:
    """It may hold a token."""
    assert "secret" not in repr(Answer(201, b"secret"))


async def test_a_call_for_a_traced_request_says_so(files: Files) -> None:
    """The next call does not."""
    trace = TraceContext.parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    async with scripted(says(answer(200)), says(answer(200))) as server, files.session(server.url) as session:
        with following(trace):
            await session.call("GET", "/x")
        await session.call("GET", "/x")

    line = b"\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n"
    assert [request.count(line) for request in server.requests] == [1, 0]


async def test_token_that_is_not_taken_any_more_is_read_anew_at_once(files: Files) -> None:
    """What was answered 401 was not carried out: with the token that the file holds by now it is, whatever it is."""
    replies = says(answer(401)), says(answer(201)), says(answer(200))
    async with scripted(*replies) as server, files.session(server.url) as session:
        files.token.write_text("new.token")
        made = await session.call("POST", "/x", {"a": 1})
        await session.call("GET", "/y")

    assert made.status == 201
    assert [b"Bearer new.token\r\n" in request for request in server.requests] == [False, True, True]
    assert server.requests[0].endswith(b'{"a":1}')
    assert server.requests[1].endswith(b'{"a":1}')


async def test_refused_token_that_nobody_replaced_is_shown_once(files: Files) -> None:
    """A second try with the same token would get the same answer."""
    async with scripted(says(answer(401)), says(answer(401))) as server, files.session(server.url) as session:
        statuses = [(await session.call("GET", "/x")).status for _ in range(2)]

    assert statuses == [401, 401]
    assert len(server.requests) == 2


async def test_somebody_elses_token_that_is_refused_says_nothing_of_the_brokers(files: Files) -> None:
    """The call is not made again with another token than its caller's."""
    async with scripted(says(answer(401))) as server, files.session(server.url) as session:
        files.token.write_text("new.token")
        refused = await session.call("GET", "/x", bearer=Sensitive("their.token"))

    assert refused.status == 401
    assert [b"Bearer their.token\r\n" in request for request in server.requests] == [True]
    assert session.token == TOKEN


async def test_files_are_not_read_at_each_refusal(files: Files) -> None:
    """A storm of refused calls reads them once a second."""
    async with scripted(says(answer(401)), says(answer(401))) as server, files.session(server.url) as session:
        await session.call("GET", "/x")  # they are looked at, and hold nothing new
        files.token.write_text("new.token")
        status = (await session.call("GET", "/x")).status

    assert status == 401
    assert len(server.requests) == 2


async def test_all_calls_that_were_refused_get_what_one_has_read(files: Files) -> None:
    """Those that did not read the files themselves are made again, too."""
    replies = [says(answer(401))] * 3 + [says(answer(200))] * 3
    async with scripted(*replies) as server, files.session(server.url) as session:
        files.token.write_text("new.token")
        answers = await asyncio.gather(*(session.call("GET", "/x") for _ in range(3)))

    assert [one.status for one in answers] == [200] * 3


async def test_watch_that_is_refused_has_the_token_read_anew(files: Files) -> None:
    """Whoever follows begins again, with the new one."""
    async with scripted(says(answer(401))) as server, files.session(server.url) as session:
        files.token.write_text("new.token")
        with pytest.raises(BrokerError):
            async with session.stream("/x?watch=1"):
                pass

        assert session.token == "new.token"


@pytest.mark.parametrize("silent", [False, True], ids=["broken off", "silent"])
async def test_watch_that_is_refused_without_a_word_is_refused(files: Files, *, silent: bool) -> None:
    """The status has come; nobody waits for ever for what else it has to say."""
    head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 50\r\n\r\n"
    reply = says(head) if silent else says_and_closes(head)
    async with scripted(reply) as server, files.session(server.url, 0.3) as session:
        with pytest.raises(BrokerError, match="watch answered HTTP 500") as refused:
            async with asyncio.timeout(5), session.stream("/x?watch=1"):
                pass

    assert refused.value.reason is Reason.KUBERNETES_UNAVAILABLE


@pytest.mark.parametrize("stream", [False, True], ids=["call", "watch"])
async def test_authority_is_replaced_at_once(tmp_path: Path, *, stream: bool) -> None:
    """The CA file is read when it does not vouch for a server; the former authority is not trusted any more."""
    former, present = [Authority.create(made(tmp_path / name), name) for name in ("former", "present")]
    token, file, shown = tmp_path / "token", tmp_path / "ca.crt", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    token.write_text(TOKEN)
    file.write_bytes(former.file.read_bytes())
    show(shown, present)
    replies = [says_and_closes(answer(200))] * 3
    async with scripted(*replies, tls=shown) as server, KubeSession(server.url, file, token, 5) as session:
        before = await reached(session, stream=stream)
        file.write_bytes(present.file.read_bytes())
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        after = [await reached(session, stream=stream) for _ in range(2)]
        show(shown, former)
        back = await reached(session, stream=stream)

    assert (before, after, back) == (False, [not stream, True], False)


async def reached(session: KubeSession, *, stream: bool) -> bool:
    """Tell whether the server was believed to be who it is."""
    try:
        if not stream:
            return (await session.call("GET", "/x")).ok
        async with session.stream("/x?watch=1"):
            return True
    except BrokerError:
        return False


def made(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


def show(tls: ssl.SSLContext, authority: Authority) -> None:
    """Have a server show a certificate of this authority."""
    files = authority.server("server")
    tls.load_cert_chain(files.certificate, files.key)
