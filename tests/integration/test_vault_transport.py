"""What reaches Vault, and what a Vault that misbehaves can do to the broker."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.model.sensitive import Sensitive
from broker.model.trace import TraceContext
from broker.tracing import following
from broker.vault import consistency
from broker.vault import transport as transport_module
from broker.vault.answer import checked
from broker.vault.transport import MAX_ANSWER_BYTES, VaultTransport
from tests.support.certificates import Authority
from tests.support.openbao import OpenBao
from tests.support.processes import free_port
from tests.support.scripted import Reply, answer, hangs, resets, says, scripted

TOKEN = Sensitive("s.secret")
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Run a server that answers everything in one way, and yield its address."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port(), ssl_context=tls)
    await site.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def failure(address: str, seconds: float = 10, ca_file: Path | None = None) -> BrokerError:
    """Make a call that fails, and return why."""
    async with VaultTransport(address, ca_file, seconds) as transport:
        with pytest.raises(BrokerError) as caught:
            checked(await transport.call("GET", "/v1/a", None, token=TOKEN))
    return caught.value


async def test_a_redirect_is_not_followed() -> None:
    """Another host never sees the token, whatever Vault answers."""
    reached: list[str] = []

    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        reached.append(request.path)
        return web.Response()

    async with answering(elsewhere) as other:

        async def redirect(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": other + request.path})

        async with answering(redirect) as address:
            error = await failure(address)

    assert not reached
    assert error.reason is Reason.VAULT_UNAVAILABLE
    assert "redirect" in error.operator_detail


async def test_paths_arrive_as_they_were_encoded() -> None:
    """Neither dots nor percent signs are resolved on the way; the token is in Vault's own header."""
    seen: list[tuple[str, str | None, str | None]] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        seen.append((request.raw_path, headers.get("X-Vault-Token"), headers.get("X-Vault-Request")))
        return web.json_response({})

    path = "/v1/secret/data/%252e%252e/%2e%2e/../null/a%2Fb//1e3"
    async with answering(note) as address, VaultTransport(address, None, 10) as transport:
        await transport.call("GET", path, None, token=TOKEN)
        await transport.call("GET", path, None)

    assert seen == [(path, "s.secret", "true"), (path, None, "true")]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token does not take a detour that nobody configured."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def fine(request: web.BaseRequest) -> web.StreamResponse:
        del request
        return web.json_response({"ok": True})

    async with answering(fine) as address, VaultTransport(address, None, 10) as transport:
        assert (await transport.call("GET", "/v1/a", None)).body == {"ok": True}


async def test_an_answer_that_drips_ends_at_the_deadline() -> None:
    """The deadline is for the whole call, not for each byte."""

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)  # slower than nothing, faster than any timeout between bytes

    async with answering(drip) as address:
        error = await failure(address, seconds=0.3)

    assert error.reason is Reason.VAULT_UNAVAILABLE
    assert "0.3 s" in error.operator_detail


async def test_an_endless_answer_is_cut_off() -> None:
    """No answer fills the memory."""

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(2 * MAX_ANSWER_BYTES // 65536):
            await response.write(b" " * 65536)
        return response

    async with answering(endless) as address:
        error = await failure(address)

    assert error.reason is Reason.VAULT_UNAVAILABLE
    assert "too large" in error.operator_detail


@pytest.mark.parametrize("body", ["<html>s.secret</html>", "[]", "", "{"])
async def test_a_page_in_front_of_vault_is_an_outage(body: str) -> None:
    """A load balancer's error page is told from Vault's answer, and not repeated."""

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        del request
        return web.Response(status=502, text=body, headers={"Retry-After": "7"})

    async with answering(page) as address:
        error = await failure(address)

    assert (error.reason, error.retry_after) == (Reason.VAULT_UNAVAILABLE, 7)
    assert "s.secret" not in repr(error)


async def test_nobody_there_is_an_outage() -> None:
    """A refused connection says where to look."""
    error = await failure(f"http://127.0.0.1:{free_port()}")

    assert error.reason is Reason.VAULT_UNAVAILABLE
    assert "vault.address" in error.operator_detail


async def test_a_new_certificate_authority_is_trusted_once_its_file_is_there(tmp_path: Path) -> None:
    """Vault's CA can be replaced while the broker runs; a server of another one is refused before."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = Authority.create(tmp_path / "old", "old"), Authority.create(tmp_path / "new", "new")
    files = new.server("vault")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)

    async def fine(request: web.BaseRequest) -> web.StreamResponse:
        del request
        return web.json_response({})

    async with answering(fine, tls) as address, VaultTransport(address, old.file, 10) as transport:
        for _ in range(2):
            with pytest.raises(BrokerError, match="ca_file"):
                await transport.call("GET", "/v1/a", None, token=TOKEN)
        old.file.write_bytes(new.file.read_bytes())
        with pytest.raises(BrokerError, match="ca_file"):
            await transport.call("GET", "/v1/a", None, token=TOKEN)

        assert (await transport.call("GET", "/v1/a", None, token=TOKEN)).status == 200


async def test_every_kind_of_outage_is_one_and_ends() -> None:
    """Sealed, frozen or gone, a real server is unavailable, within the deadline, and then back."""
    async with OpenBao.start() as server, VaultTransport(server.address, server.ca_file, 1) as transport:

        async def reason() -> Reason | None:
            try:
                checked(await transport.call("GET", "/v1/sys/mounts", None, token=Sensitive(server.root_token)))
            except BrokerError as error:
                return error.reason
            return None

        assert await reason() is None
        await server.seal()
        assert await reason() is Reason.VAULT_UNAVAILABLE
        await server.unseal()
        assert await reason() is None
        server.pause()
        assert await reason() is Reason.VAULT_UNAVAILABLE
        server.resume()
        assert await reason() is None
        await server.stop()
        assert await reason() is Reason.VAULT_UNAVAILABLE
        await server.restart()
        assert await reason() is None


async def test_a_call_for_a_traced_request_says_so() -> None:
    """Vault can be told to keep the header in its own audit log; the next call has none."""
    sent: list[str | None] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        sent.append(request.headers.get("traceparent"))
        return web.json_response({})

    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with answering(note) as address, VaultTransport(address, None, 10) as transport:
        with following(TraceContext.parse(header)):
            await transport.call("GET", "/v1/a", None, token=TOKEN)
        await transport.call("GET", "/v1/a", None, token=TOKEN)

    assert sent == [header, None]


async def test_one_connection_serves_one_call_after_the_other() -> None:
    """A handshake for each call would be most of what it takes."""
    replies = [says(answer(200, b"{}")) for _ in range(3)]
    async with scripted(*replies) as server, VaultTransport(server.url, None, 5) as transport:
        for _ in range(3):
            await transport.call("GET", "/v1/a", None)

    assert server.connections == 1


async def test_an_old_connection_is_closed_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer may close it just now."""
    monkeypatch.setattr(transport_module, "IDLE_SECONDS", -1.0)
    replies = [says(answer(200, b"{}")) for _ in range(2)]
    async with scripted(*replies) as server, VaultTransport(server.url, None, 5) as transport:
        await transport.call("GET", "/v1/a", None)
        await transport.call("GET", "/v1/a", None)
        await asyncio.wait_for(server.closed.get(), 5)

    assert server.connections == 2


async def test_calls_close_what_was_idle_for_too_long() -> None:
    """The connections of a storm do not stay beside the one that is in use."""
    replies = [says(answer(200, b"{}")) for _ in range(3)]
    async with scripted(*replies) as server, VaultTransport(server.url, None, 5) as transport:
        await asyncio.gather(*(transport.call("GET", "/v1/a", None) for _ in range(2)))
        transport._pool._idle[0].idle_since -= 100
        transport._closed_idle_at -= 100
        await transport.call("GET", "/v1/a", None)
        await asyncio.wait_for(server.closed.get(), 5)

    assert server.connections == 2


@pytest.mark.parametrize("failing", [hangs(), says(b"nonsense")], ids=["hangs", "nonsense"])
async def test_after_a_call_that_failed_the_next_goes_over_a_new_connection(failing: Reply) -> None:
    """Others that are idle may lead to the same server."""
    replies = says(answer(200, b"{}")), says(answer(200, b"{}")), failing, says(answer(200, b"{}"))
    async with scripted(*replies) as server, VaultTransport(server.url, None, 0.5) as transport:
        await asyncio.gather(*(transport.call("GET", "/v1/a", None) for _ in range(2)))
        with pytest.raises(BrokerError):
            await transport.call("POST", "/v1/a", None)
        await transport.call("GET", "/v1/a", None)

    assert server.connections == 3


@pytest.mark.parametrize(("method", "statuses"), [("GET", [200]), ("LIST", [200]), ("POST", [])])
async def test_a_look_is_repeated_where_the_connection_was_closed_and_a_write_is_not(
    method: str, statuses: list[int]
) -> None:
    """Nobody knows whether a write was carried out: the next look at the copy finds out."""
    replies = says(answer(200, b"{}")), resets(), says(answer(200, b"{}"))
    async with scripted(*replies) as server, VaultTransport(server.url, None, 5) as transport:
        await transport.call("GET", "/v1/a", None)
        got = []
        with suppress(BrokerError):
            got.append((await transport.call(method, "/v1/a", None)).status)

    assert got == statuses


async def test_nothing_gets_out_of_its_line_of_a_request() -> None:
    """A line end in a path or a token would be another request, or another header."""
    async with scripted() as server, VaultTransport(server.url, None, 5) as transport:
        for path, token in (
            ("/v1/a b", "s"),
            ("/v1/a\r\nX: y", "s"),
            ("v1", "s"),
            ("/v1/a", "s\r\nX: y"),
            ("/v1/a", "s\n"),
        ):
            with pytest.raises(ValueError, match="cannot be written down"):
                await transport.call("GET", path, None, token=Sensitive(token))

    assert server.connections == 0


async def test_a_path_in_the_address_goes_before_that_of_the_call() -> None:
    """As where a proxy serves Vault below a path of its own."""
    reply = says(answer(200, b"{}"))
    async with scripted(reply) as server, VaultTransport(f"{server.url}/vault/", None, 5) as transport:
        await transport.call("GET", "/v1/a", None)

    assert server.requests[0].startswith(b"GET /vault/v1/a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)


WRITTEN = "eyJjbHVzdGVyIjoiYSIsInZhbHVlIjoiNyJ9"
ACTIVE = "forward-active-node"
Asked = tuple[str, str | None, str | None]
"""What a server saw: method, X-Vault-Index and X-Vault-Inconsistent."""


def a_server(asked: list[Asked], behind: tuple[int, list[str]], active: int = 200) -> Handler:
    """Say after a write how far the data has got, and refuse as ``behind`` what must be as new as that.

    The server that takes writes, to which it passes on what is to be passed on, answers ``active``.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        index, inconsistent = (request.headers.get(name) for name in ("X-Vault-Index", "X-Vault-Inconsistent"))
        asked.append((request.method, index, inconsistent))
        if request.method == "POST":
            return web.json_response({}, headers={"X-Vault-Index": WRITTEN})
        if index and not inconsistent:
            return web.json_response({"errors": behind[1]}, status=behind[0])
        return web.json_response({}, status=active if inconsistent else 200)

    return answer


async def written_and_read(server: Handler) -> int:
    """Read something, write it, and return the status of reading it again."""
    async with answering(server) as address, VaultTransport(address, None, 10) as transport:
        await transport.call("GET", "/v1/a", None, token=TOKEN)
        await transport.call("POST", "/v1/a", {}, token=TOKEN)
        return (await transport.call("GET", "/v1/a", None, token=TOKEN)).status


@pytest.mark.parametrize("behind", [(412, ["required index state not present"]), (429, [])], ids=["vault", "openbao"])
async def test_a_standby_that_is_behind_passes_on_what_was_just_written(behind: tuple[int, list[str]]) -> None:
    """It is told how new the answer has to be, and asked to pass the call on only where it is not as far."""
    asked: list[Asked] = []
    status = await written_and_read(a_server(asked, behind))

    assert status == 200
    assert asked == [("GET", None, None), ("POST", None, None), ("GET", WRITTEN, None), ("GET", WRITTEN, ACTIVE)]


async def test_a_standby_that_stays_behind_is_an_outage() -> None:
    """The call is repeated once; what it answers then is what it is."""
    asked: list[Asked] = []
    status = await written_and_read(a_server(asked, (412, []), active=412))

    assert (status, len(asked)) == (412, 4)


async def test_a_quota_is_not_taken_for_a_standby() -> None:
    """Who is told to come less often does not come again at once."""
    asked: list[Asked] = []
    status = await written_and_read(a_server(asked, (429, ["request path: rate limit quota exceeded"])))

    assert (status, len(asked)) == (429, 3)


async def test_how_far_the_data_had_got_is_forgotten_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that went back to what it was is not asked for what it has not for ever."""
    monkeypatch.setattr(consistency, "KEPT_SECONDS", -1.0)
    asked: list[Asked] = []
    status = await written_and_read(a_server(asked, (412, [])))

    assert (status, asked[-1]) == (200, ("GET", None, None))


@pytest.mark.parametrize("failing", [307, 500, 503])
async def test_a_server_that_cannot_serve_is_left_for_another_one(failing: int) -> None:
    """Behind one address there may be several: a connection that is kept would lead to the same one for ever."""
    answers = iter([200, failing, failing, 200, 200])
    ports: list[int] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        ports.append(request.transport.get_extra_info("peername")[1])
        return web.Response(status=next(answers))

    async with answering(note) as address, VaultTransport(address, None, 10) as transport:
        for _ in range(5):
            await transport.call("GET", "/v1/a", None, token=TOKEN)

    assert ports[0] == ports[1]
    assert len({*ports[1:4]}) == 3
    assert ports[3] == ports[4]


@pytest.mark.parametrize("said", ["a b", "x" * 1025, "a,b"])
async def test_what_is_no_index_is_not_sent_back(said: str) -> None:
    """What an answer says gets into requests only where it looks like what it should be."""
    sent: list[str | None] = []

    async def note(request: web.BaseRequest) -> web.StreamResponse:
        sent.append(request.headers.get("X-Vault-Index"))
        return web.json_response({}, headers={"X-Vault-Index": said})

    async with answering(note) as address, VaultTransport(address, None, 10) as transport:
        for _ in range(2):
            await transport.call("GET", "/v1/a", None, token=TOKEN)

    assert sent == [None, None]
