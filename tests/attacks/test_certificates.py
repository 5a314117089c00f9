"""Client certificates on the broker's own TLS listener: only those of its authorities, and only for their client."""

import datetime as dt
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from broker.http.listeners import RELOAD_SECONDS
from tests.support.broker import BrokerProcess, Reply, Tenant, token_client
from tests.support.certificates import Authority, CertificateFiles
from tests.support.lab import Lab
from tests.support.processes import free_port, until

NAME = "ci.shop.example"


def digest(files: CertificateFiles) -> str:
    """Return the SHA-256 of a certificate, as openssl x509 -fingerprint -sha256 shows it, without the colons."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(files.certificate.read_text())).hexdigest()


@dataclass(frozen=True, slots=True)
class Mutual:
    """A broker that takes certificates, whose they must be, and those of the client ``named`` and ``pinned``."""

    broker: BrokerProcess
    server_ca: Path
    client_ca: Authority
    named: CertificateFiles
    pinned: CertificateFiles

    def tls(self, files: CertificateFiles | None) -> ssl.SSLContext:
        """Return a context that shows a certificate, or none."""
        context = ssl.create_default_context(cafile=str(self.server_ca))
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        return context

    async def ask(self, files: CertificateFiles | None, client: str, **more: Any) -> Reply:
        """Ask for a token with a certificate."""
        body = {"client": f"mutual/{client}"}
        return await self.broker.call("POST", "/v1/tokens", body, tls=self.tls(files), **more)

    async def outcome(self, files: CertificateFiles | None, client: str) -> tuple[int, str]:
        """Return status and code of what a certificate gets."""
        reply = await self.ask(files, client)
        return reply.status, reply.body.get("code", "issued")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mutual(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mutual]:
    """Register both clients and run the broker."""
    server = Authority.create(tmp_path_factory.mktemp("server"), "server-ca")
    clients = Authority.create(tmp_path_factory.mktemp("clients"), "client-ca")
    files, named, pinned = server.server("broker"), clients.client("named", NAME), clients.client("pinned")
    tenant = await Tenant.create(installed.cluster, "mutual")
    await tenant.account("reader")
    proofs = {"named": {"dnsName": NAME}, "pinned": {"sha256": [digest(pinned)]}}
    tls = {
        "cert_file": str(files.certificate),
        "key_file": str(files.key),
        "client_ca_file": str(clients.file),
    }
    async with BrokerProcess.start(installed, "mutual", listen={"port": free_port(), "tls": tls}) as broker:
        for name, proof in proofs.items():
            spec = {"authentication": [{"certificate": proof}], "grants": [{"serviceAccount": {"name": "reader"}}]}
            await installed.cluster.request("POST", tenant.path, token_client("mutual", name, **spec))
        made = Mutual(broker, server.file, clients, named, pinned)

        async def served() -> bool:
            outcomes = [await made.outcome(named, "named"), await made.outcome(pinned, "pinned")]
            return {status for status, _ in outcomes} == {200}

        await until(served, what="both clients get tokens", programs=[broker.program])
        yield made


async def test_a_certificate_gets_a_token(mutual: Mutual) -> None:
    """By its name and by its digest; the audit record has the digest."""
    assert await mutual.outcome(mutual.named, "named") == (200, "issued")
    record = json.loads(mutual.broker.audit_file.read_text().splitlines()[-1])
    assert await mutual.outcome(mutual.pinned, "pinned") == (200, "issued")

    assert (record["proof"], record["proof_subject"]) == ("certificate", digest(mutual.named))


async def test_oauth_takes_it_too(mutual: Mutual) -> None:
    """tls_client_auth (RFC 8705, 2.1): client_id and the certificate."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    form = b"grant_type=client_credentials&client_id=mutual/named"
    right, none, other = [
        await mutual.broker.call("POST", "/oauth2/token", data=form, headers=headers, tls=mutual.tls(files))
        for files in (mutual.named, None, mutual.pinned)
    ]

    assert [one.status for one in (right, none, other)] == [200, 401, 401]


async def test_no_certificate(mutual: Mutual) -> None:
    """Others may come without one: with a secret, or to be refused."""
    assert await mutual.outcome(None, "named") == (401, "invalid_client")


async def test_a_certificate_of_another_client(mutual: Mutual) -> None:
    """Each is its own client's only."""
    assert await mutual.outcome(mutual.named, "pinned") == (401, "invalid_client")
    assert await mutual.outcome(mutual.pinned, "named") == (401, "invalid_client")
    assert await mutual.outcome(mutual.named, "nobody") == (401, "invalid_client")


@pytest.mark.parametrize(
    "name", ["x.ci.shop.example", "ci.shop.example.evil.example", "*.shop.example", "shop.example"]
)
async def test_names_that_only_look_alike(mutual: Mutual, name: str) -> None:
    """The name is compared as it stands: no wildcard, no part."""
    assert await mutual.outcome(mutual.client_ca.client("alike", name), "named") == (401, "invalid_client")


async def test_the_name_in_the_subject_alone(mutual: Mutual) -> None:
    """The common name proves nothing (RFC 9525)."""
    assert await mutual.outcome(mutual.client_ca.client(NAME, "other.example"), "named") == (401, "invalid_client")


async def test_a_stranger_beside_the_certificate(mutual: Mutual) -> None:
    """A header counts before the certificate: a wrong one is not made good by it."""
    reply = await mutual.ask(mutual.named, "named", headers={"Authorization": "Basic bXV0dWFsL25hbWVkOng="})

    assert reply.status == 401


async def test_certificates_that_end_the_handshake(mutual: Mutual, tmp_path: Path) -> None:
    """Another authority's, an expired one, a server's: OpenSSL says so before any request."""
    other = Authority.create(tmp_path, "client-ca").client("other", NAME)
    expired = mutual.client_ca.client("expired", NAME, lifetime=dt.timedelta(minutes=-1))
    server = mutual.client_ca.server("server")

    for files in (other, expired, server):
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await mutual.outcome(files, "named")


async def test_an_authority_that_is_given_up(mutual: Mutual, tmp_path: Path) -> None:
    """Its certificates are refused without a restart, and those of the new one accepted."""
    old = mutual.client_ca.file.read_bytes()
    new = Authority.create(tmp_path, "client-ca-2")
    renewed = new.client("renewed", NAME)
    mutual.client_ca.file.write_bytes(new.file.read_bytes())

    async def accepted(files: CertificateFiles) -> bool:
        try:
            return (await mutual.outcome(files, "named"))[0] == 200
        except (aiohttp.ClientError, ConnectionError):
            return False

    try:
        await until(lambda: accepted(renewed), what="the new authority counts", seconds=2 * RELOAD_SECONDS + 5)
        assert not await accepted(mutual.named)
    finally:
        mutual.client_ca.file.write_bytes(old)
        await until(lambda: accepted(mutual.named), what="the old one counts again", seconds=2 * RELOAD_SECONDS + 5)
