"""One call to a server that is not the API server: Vault, or the broker. No proxy, no redirect."""

import asyncio
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.cli.errors import usage
from broker.model.sensitive import Sensitive

DEADLINE_SECONDS = 10.0
MAX_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered; ``failure`` is why there is no answer, and then the status is 0."""

    status: int = 0
    document: dict[str, Any] | None = None
    date: str = ""
    failure: str = ""

    def data(self) -> dict[str, Any]:
        """Return Vault's ``data``, or nothing."""
        data = (self.document or {}).get("data")
        return data if isinstance(data, dict) else {}


def trust(ca_file: str) -> ssl.SSLContext:
    """Return whom to trust: a CA, or the system's. Raises CommandError."""
    try:
        return ssl.create_default_context(cafile=str(Path(ca_file)) if ca_file else None)
    except OSError:
        raise usage(f"{ca_file} cannot be read as CA certificates.") from None


async def get(url: str, tls: ssl.SSLContext, token: Sensitive | None = None) -> Reply:
    """Return the answer to a GET; a server that cannot be reached is an answer, too."""
    import aiohttp  # noqa: PLC0415 - the help is there without it

    headers = {"X-Vault-Request": "true"} | ({"X-Vault-Token": token.reveal()} if token else {})
    try:
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), trust_env=False) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    return Reply(failure="its answer is too large")
            return Reply(response.status, _document(bytes(body)), response.headers.get("Date", ""))
    except TimeoutError:
        return Reply(failure=f"it did not answer within {DEADLINE_SECONDS:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Reply(failure=str(error) or type(error).__name__)


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
