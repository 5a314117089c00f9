"""Asks a broker for a token over HTTP, or to end one; the one module that knows aiohttp.

No proxy of the environment is used and no redirect is followed: the secret goes to the host that was named,
and nowhere else.
"""

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import aiohttp

from broker.cli.errors import CommandError, ExitCode, usage
from broker.cli.token.credentials import Credentials
from broker.cli.token.problem import explain, problem
from broker.model.sensitive import Sensitive

DEADLINE_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024 * 1024
_Answer = tuple[int, Mapping[str, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for; None leaves the choice to the grant."""

    grant: str | None
    ttl: str | None
    audience: str | None

    def document(self) -> dict[str, str]:
        """Return the request's body: only what was said."""
        said = {"grant": self.grant, "ttl": self.ttl, "audience": self.audience}
        return {name: value for name, value in said.items() if value is not None}


async def get_token(credentials: Credentials, ask: Ask) -> dict[str, Any]:
    """Return the broker's answer, which holds the token. Raises CommandError."""
    status, headers, document = await _call(credentials, "POST", "/v1/tokens", json=_asked(credentials, ask))
    return _token(status, headers, document)


async def revoke_id(credentials: Credentials, token_id: str) -> None:
    """End the token of that id, if the client has one. Raises CommandError."""
    # A JWT does not say for which client it is.
    query = f"?client={quote_plus(credentials.client)}" if credentials.bearer else ""
    _done(*await _call(credentials, "DELETE", f"/v1/tokens/{quote_plus(token_id)}{query}"))


async def revoke_token(credentials: Credentials, token: Sensitive) -> None:
    """End a token, if it is the client's own (RFC 7009). Raises CommandError."""
    form = {"token": token.reveal()} | ({"client_id": credentials.client} if credentials.bearer else {})
    _done(*await _call(credentials, "POST", "/oauth2/revoke", data=form))


async def _call(credentials: Credentials, method: str, path: str, **body: Any) -> _Answer:
    connector = aiohttp.TCPConnector(ssl=_tls(credentials.ca_file))
    try:
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            aiohttp.ClientSession(connector=connector, trust_env=False) as session,
            session.request(
                method,
                f"{credentials.url}{path}",
                headers={"Authorization": _authorization(credentials), "Accept": "application/json"},
                allow_redirects=False,
                **body,
            ) as response,
        ):
            return response.status, response.headers, await _body(response)
    except TimeoutError:
        raise _unavailable(credentials, f"it did not answer within {DEADLINE_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise _unavailable(credentials, str(error)) from None


def _asked(credentials: Credentials, ask: Ask) -> dict[str, str]:
    # A JWT does not say for which client it is.
    return ask.document() | ({"client": credentials.client} if credentials.bearer else {})


def _authorization(credentials: Credentials) -> str:
    """Return the Authorization header; both halves of Basic are form-encoded (RFC 6749, section 2.3.1)."""
    if credentials.bearer:
        return f"Bearer {credentials.proof.reveal()}"
    pair = f"{quote_plus(credentials.client)}:{quote_plus(credentials.proof.reveal())}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise usage(f"the CA file {ca_file} cannot be read, or holds no certificate.") from None


async def _body(response: aiohttp.ClientResponse) -> dict[str, Any]:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            break
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _token(status: int, headers: Mapping[str, str], document: dict[str, Any]) -> dict[str, Any]:
    if status == HTTPStatus.OK and isinstance(document.get("token"), str):
        return document
    raise explain(status, document, headers.get("Retry-After"))


def _done(status: int, headers: Mapping[str, str], document: dict[str, Any]) -> None:
    if status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}:
        raise explain(status, problem(document), headers.get("Retry-After"))


def _unavailable(credentials: Credentials, why: str) -> CommandError:
    return CommandError(f"the broker at {credentials.url} cannot be reached: {why}.", ExitCode.UNAVAILABLE)
