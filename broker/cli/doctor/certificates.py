"""Certificates: the authority that clients are told of, and what servers show."""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from broker.cli.doctor.findings import Finding, ok, problem, unknown
from broker.cli.times import both

SECONDS = 10.0
SOON_DAYS = 7


def authority(pem: str, now: datetime) -> Finding:
    """Judge the CA certificates of the broker's configuration, which clients trust the API server by."""
    from cryptography import x509  # noqa: PLC0415 - it takes its time to load

    identity, mend = "certificate.cluster-ca", "put the API server's current CA into cluster.ca_file"
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return problem(identity, "the cluster.ca_file of the broker's configuration holds no certificate", mend)
    end = min(it.not_valid_after_utc for it in certificates)
    return ending(identity, "the CA of the broker's configuration", end, now, mend)


def ending(identity: str, what: str, end: datetime, now: datetime, mend: str) -> Finding:
    """Judge how long a certificate lasts."""
    if end <= now:
        return problem(identity, f"{what} expired at {both(end, now)}", mend)
    if (end - now).days < SOON_DAYS:
        return problem(identity, f"{what} expires soon, at {both(end, now)}", mend)
    return ok(identity, f"{what} is good until {both(end, now)}")


@dataclass(frozen=True, slots=True)
class Server:
    """Who shows a certificate, where, and the line that renews it; ``id`` is that of the finding."""

    id: str
    name: str
    url: str
    mend: str


async def server(asked: Server, tls: ssl.SSLContext, now: datetime) -> Finding:
    """Judge the certificate that a server shows: its chain, its name, and how long it lasts."""
    identity, name, url, mend = asked.id, asked.name, asked.url, asked.mend
    parts = urlsplit(url)
    if parts.scheme != "https":
        return unknown(identity, f"{url} is not https, so there is no certificate")
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=tls)
    except ssl.SSLCertVerificationError as error:
        return problem(identity, f"the certificate of the {name} at {url} is refused: {error.verify_message}", mend)
    except (OSError, TimeoutError) as error:
        return unknown(identity, f"the {name} at {url} cannot be reached from here ({error or 'no answer in time'})")
    shown = writer.get_extra_info("ssl_object").getpeercert()
    await _closed(writer)
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)
    return ending(identity, f"the certificate of the {name} at {url}", end, now, mend)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """End a connection; a server that does not say goodbye is not waited for."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(SECONDS):
            await writer.wait_closed()
