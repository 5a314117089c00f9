"""Where ``token get`` finds the broker, its client's id and its secret.

What is said on the command line counts first, then the environment, then the credentials file. The secret
itself is never an argument: process lists and the shell's history would show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from broker.cli import secret_file
from broker.cli.errors import usage
from broker.model.client import ClientId
from broker.model.sensitive import Sensitive

FIELDS = frozenset({"url", "client", "secret", "secret_file", "jwt_file", "ca_file"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Credentials:
    """Which broker to ask, and as whom. Without ``ca_file`` the system's authorities are trusted.

    ``proof`` is a JWT where ``bearer`` says so, else the client's secret.
    """

    url: str
    client: str
    proof: Sensitive
    bearer: bool
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line and the environment say; the two secrets are never both there."""

    url: str | None
    client: str | None
    secret_file: Path | None
    secret: Sensitive | None
    jwt_file: Path | None
    ca_file: Path | None


def find(given: Given, file: Path | None) -> Credentials:
    """Return the credentials to use. Raises CommandError(usage) for what is missing or cannot be meant."""
    stored = _stored(file) if file else {}
    ca_file = given.ca_file or _path(stored, "ca_file", file)
    url, client = _url(given.url or stored.get("url")), _client(given.client or stored.get("client"))
    jwt_file = _jwt_file(given, stored, file)
    proof = _secret(given, stored, file) if jwt_file is None else secret_file.read_jwt(jwt_file)
    return Credentials(url, client, proof, jwt_file is not None, ca_file)


def _jwt_file(given: Given, stored: Mapping[str, str], file: Path | None) -> Path | None:
    """Return the file with a JWT, where none of those that count before it is a secret."""
    if given.jwt_file and given.secret_file:
        raise usage("--jwt-file and --secret-file are two proofs: one of them is too much.")
    if given.jwt_file or given.secret_file or given.secret:
        return given.jwt_file
    return _path(stored, "jwt_file", file)


def _secret(given: Given, stored: Mapping[str, str], file: Path | None) -> Sensitive:
    path = given.secret_file or (None if given.secret else _path(stored, "secret_file", file))
    if path:
        return secret_file.read(path)
    if given.secret:
        return secret_file.checked(given.secret.reveal(), "TOKENBROKER_SECRET")
    if "secret" in stored:
        return secret_file.checked(stored["secret"], f"the secret in {file}")
    raise usage("no secret: name its file with --secret-file, or set TOKENBROKER_SECRET; or a JWT's with --jwt-file.")


def _url(text: str | None) -> str:
    if not text:
        raise usage("which broker? Name it with --url or TOKENBROKER_URL.")
    return checked_url(text, "the broker's URL")


def checked_url(text: str, what: str) -> str:
    """Return a URL of a server, without a slash at its end. Raises CommandError(usage)."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise usage(f"{what} is not one such as https://tokenbroker.example.com.")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise usage(f"{what} is not https: secrets would travel for everybody to read.")
    return text.rstrip("/")


def _client(text: str | None) -> str:
    if not text:
        raise usage("as which client? Name it as NAMESPACE/NAME with --client or TOKENBROKER_CLIENT.")
    if ClientId.parse(text) is None:
        raise usage(f"{text!r} is not a client's id, NAMESPACE/NAME.")
    return text


def _path(stored: Mapping[str, str], field: str, file: Path | None) -> Path | None:
    """Return a path of the credentials file, which is relative to that file's folder."""
    return file.parent / stored[field] if file and field in stored else None


def _stored(file: Path) -> dict[str, str]:
    try:
        with file.open("rb") as opened:
            document: Any = yaml.safe_load(opened.read(_MAX_BYTES))  # JSON is YAML
    except OSError as error:
        raise usage(f"the credentials file {file} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError):  # their messages quote the file
        raise usage(f"the credentials file {file} is neither JSON nor YAML.") from None
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise usage(f"the credentials file {file} is not a mapping of names to strings.")
    if document.keys() - FIELDS:
        raise usage(f"the credentials file {file} has unknown fields; known are {', '.join(sorted(FIELDS))}.")
    if len({"secret", "secret_file", "jwt_file"} & document.keys()) > 1:
        raise usage(f"the credentials file {file} has two of secret, secret_file and jwt_file: one is enough.")
    return document
