"""TLS on the API listener, from files that change."""

import asyncio
import ssl
import time
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from broker.http.listeners import Listener, TlsReloader
from tests.support.certificates import Authority, CertificateFiles
from tests.support.malformed import MALFORMED
from tests.support.processes import free_port


async def hello(_request: web.BaseRequest) -> web.Response:
    """Answer anything."""
    return web.Response(text="hello")


def files(folder: Path, name: str) -> CertificateFiles:
    """Return a certificate and key of a new authority."""
    folder.mkdir()
    return Authority.create(folder, name).server("server")


def replace(live: CertificateFiles, new: CertificateFiles) -> None:
    """Put another pair into the files in use."""
    live.certificate.write_bytes(new.certificate.read_bytes())
    live.key.write_bytes(new.key.read_bytes())


async def certificate(port: int) -> bytes:
    """Return the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


async def test_a_new_certificate_serves_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    """After a reload new handshakes see the new certificate, and a connection from before still answers."""
    live, new = files(tmp_path / "a", "one"), files(tmp_path / "b", "two")
    reloader = TlsReloader(live.certificate, live.key)
    port = free_port()
    async with (
        Listener("api", hello, "127.0.0.1", port, malformed=MALFORMED, tls=reloader.context, drain_seconds=1),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
    ):
        url = f"https://127.0.0.1:{port}/"
        async with session.get(url, ssl=False) as answer:
            assert await answer.text() == "hello"
        before = await certificate(port)
        replace(live, new)
        reloader.reload()
        after = await certificate(port)
        async with session.get(url, ssl=False) as answer:
            assert await answer.text() == "hello"

    assert before != after
    assert after == ssl.PEM_cert_to_DER_cert(new.certificate.read_text())


def test_a_pair_that_does_not_fit_is_not_loaded(tmp_path: Path) -> None:
    """A certificate without its key, as in the middle of a replacement, leaves the old pair in use."""
    live, new = files(tmp_path / "a", "one"), files(tmp_path / "b", "two")
    reloader = TlsReloader(live.certificate, live.key)
    live.certificate.write_bytes(new.certificate.read_bytes())

    with pytest.raises(ssl.SSLError):
        reloader.reload()

    live.key.write_bytes(new.key.read_bytes())
    reloader.reload()


def test_when_the_certificate_expires_is_that_of_the_one_that_is_shown(tmp_path: Path) -> None:
    """It follows what was loaded, not what lies in the files."""
    (tmp_path / "a").mkdir()
    authority, day = Authority.create(tmp_path / "a", "one"), timedelta(days=1)
    live, new = authority.server("live", 3 * day), authority.server("new", 9 * day)
    reloader, now = TlsReloader(live.certificate, live.key), time.time()
    before = reloader.expires_at
    replace(live, new)
    in_the_files = reloader.expires_at
    reloader.reload()

    assert before == in_the_files == pytest.approx(now + 3 * 86400, abs=60)
    assert reloader.expires_at == pytest.approx(now + 9 * 86400, abs=60)
