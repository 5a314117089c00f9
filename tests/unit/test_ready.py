"""Whether a broker says that it is ready, around an API server that answers only some of its questions."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp.test_utils import RawTestServer, TestClient

from broker.app import Broker, broker
from broker.config import load
from broker.kube import reflector as watching
from tests.support.certificates import Authority
from tests.support.processes import until
from tests.support.scripted import answer, read_request

LIST = answer(200, b'{"metadata": {"resourceVersion": "1"}, "items": []}')
CLIENT = {
    "apiVersion": "tokenbroker.dev/v1alpha1",
    "kind": "TokenClient",
    "metadata": {"namespace": "shop", "name": "reporter"},
    "spec": {"grants": [{"serviceAccount": {"name": "reporter"}, "vault": {}}]},
}
WATCH = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOOKMARK = orjson.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}}) + b"\n"


class ApiServer:
    """Lists nothing, and its watches speak all the time; what is in ``broken`` is not answered."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.anchors = asyncio.Event()
        """Set: calls about anchors are answered."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while await self._answer((await read_request(reader)).partition(b" HTTP/")[0].decode(), writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the broker has gone
        finally:
            writer.close()

    async def _answer(self, line: str, writer: asyncio.StreamWriter) -> bool:
        kind = line.partition("?")[0].rpartition("/")[2]
        watched = "watch=1" in line
        self.asked.append(line)
        if "/secrets/" in line:
            await self.anchors.wait()
        if kind not in self.broken:
            writer.write(WATCH if watched else LIST)
        while watched and kind not in self.broken:
            writer.write(b"%x\r\n%s\r\n" % (len(BOOKMARK), BOOKMARK))
            await writer.drain()
            await asyncio.sleep(0.02)  # the pace of its bookmarks
        return kind not in self.broken


@asynccontextmanager
async def running(
    folder: Path, server: ApiServer, *more: str, directory: Path | None = None
) -> AsyncIterator[TestClient[Any, Any]]:
    """Let a broker follow its registry, and do ``more``; yield a client of its second port."""
    authority = Authority.create(folder, "api")
    files, tls = authority.server("api"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    config = config_at(folder, url, authority.file, directory)
    async with broker(load(config)) as made, _client(made) as ops:
        jobs = [asyncio.create_task(made.jobs[name]()) for name in ("registry", "reconcile", *more)]
        try:
            yield ops
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)
            listener.close()


def _client(made: Broker) -> TestClient[Any, Any]:
    return TestClient(RawTestServer(made.ops))


def config_at(folder: Path, url: str, ca_file: Path, directory: Path | None) -> Path:
    """Write a broker's configuration into a folder, with a token that says nothing, and return where it is."""
    claims = base64.urlsafe_b64encode(b'{"iss": "https://issuer", "aud": ["https://api"]}').decode().rstrip("=")
    (folder / "token").write_text(f"e30.{claims}.e30")
    document = {
        "cluster": {"name": "lab", "server": url, "ca_file": str(ca_file)},
        "kubernetes": {"server": url, "ca_file": str(ca_file), "token_file": str(folder / "token")},
        "admission": {"policies": "absent"},
        "audit": {"file": str(folder / "audit")},
        "registry": {"directory": str(directory)} if directory else {},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [("tokenclients", "registry_stale: registered clients: "), ("namespaces", "registry_stale: Namespaces: ")],
)
async def test_a_broker_that_lost_sight_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str
) -> None:
    """Of its clients or of its namespaces: it says of which, in metrics too, and is ready again when it sees them."""
    monkeypatch.setattr(watching, "STALE_SECONDS", 0.5)
    monkeypatch.setattr(watching, "backoff", lambda *_args, **_more: 0.05)
    server = ApiServer()
    async with running(tmp_path, server, "namespaces") as ops:

        async def shows(status: int, text: str) -> bool:
            async with ops.get("/readyz") as reply:
                return reply.status == status and (await reply.text()).startswith(text)

        await until(lambda: shows(200, "ok"), what="it is ready")
        server.broken.add(kind)
        await until(lambda: shows(503, said), what="it has lost sight")
        async with ops.get("/metrics") as page:
            lost = await page.text()
        server.broken.clear()
        await until(lambda: shows(200, "ok"), what="it sees again")
        async with ops.get("/metrics") as page:
            sees = await page.text()
    source = {"tokenclients": "clients"}.get(kind, kind)

    assert 'tokenbroker_unready{reason="registry_stale"} 1.0\n' in lost
    assert age(lost, source) >= 0.5 > age(sees, source)
    assert 'tokenbroker_unready{reason="registry_stale"} 0.0\n' in sees


def age(page: str, source: str) -> float:
    """Return how old a page says that a source is."""
    start = f'tokenbroker_registry_age_seconds{{source="{source}"}} '
    return next(float(line.removeprefix(start)) for line in page.splitlines() if line.startswith(start))


async def test_a_broker_that_has_not_looked_at_its_files_is_not_ready_and_does_not_lead(tmp_path: Path) -> None:
    """Nothing tells it what the leader found. What it could not find was looked for: nobody waits for ever."""
    server, directory = ApiServer(), tmp_path / "clients"
    directory.mkdir()
    (directory / "reporter.yaml").write_text(yaml.safe_dump(CLIENT))
    async with running(tmp_path, server, "lease", directory=directory) as ops:

        async def says(text: str) -> bool:
            async with ops.get("/readyz") as reply:
                return (await reply.text()).strip() == text

        await until(
            lambda: says("anchor_missing: 1 of 1 clients are not looked at yet"), what="it has a client to look at"
        )
        await asyncio.sleep(0.2)  # time for what must not come
        before = list(server.asked)
        server.anchors.set()
        await until(lambda: says("ok"), what="it is ready")
        await until(lambda: asks_to_lead(server), what="it asks for the Lease")

    assert not any("/leases" in line for line in before)


async def asks_to_lead(server: ApiServer) -> bool:
    """Tell whether the Lease was looked at."""
    return any("/leases" in line for line in server.asked)
