"""Kinds of values that stand in the configuration, each checked at start."""

import ipaddress
import os
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from broker.model.client import DNS_LABEL
from broker.model.decision import MAX_TTL_SECONDS, MIN_TTL_SECONDS
from broker.model.duration import parse_duration


def _https(value: str) -> str:
    if not value.isascii():
        raise ValueError("must be ASCII: write a host name as in DNS (xn--...), and a path percent-encoded")
    if not re.fullmatch(r"https://[^\s/?#@]+(/[^\s?#]*)?", value):
        raise ValueError("must be an https:// URL without user, query or fragment")
    return value.rstrip("/")


def _readable(value: Path) -> Path:
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _directory(value: Path) -> Path:
    try:
        with os.scandir(value):
            return value
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _path_segment(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise ValueError("must be letters, digits, '.', '_' and '-' only, and start with a letter or digit")
    return value


def _ttl(value: object) -> int:
    seconds = parse_duration(value) if isinstance(value, str) else 0
    if not MIN_TTL_SECONDS <= seconds <= MAX_TTL_SECONDS:
        raise ValueError("must be a duration from 10m to 24h")
    return seconds


def _path_segments(value: str) -> str:
    for segment in value.split("/"):
        _path_segment(segment)
    return value


def _dns_label(value: str) -> str:
    if not DNS_LABEL.fullmatch(value):
        raise ValueError("must be a DNS label")
    return value


def _public_url(value: str) -> str:
    host = urlsplit(value).hostname or ""
    return _https(value) if not (value.startswith("http://") and is_loopback(host)) else value.rstrip("/")


def _issuer(value: str) -> str:
    _https(value)
    return value  # compared with iss letter by letter, so a slash at the end stays


Seconds = Annotated[float, Field(gt=0, le=300)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
IssuerUrl = Annotated[str, AfterValidator(_issuer)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
ReadableDirectory = Annotated[Path, AfterValidator(_directory)]
PathSegment = Annotated[str, AfterValidator(_path_segment)]
PathSegments = Annotated[str, AfterValidator(_path_segments)]
DnsLabel = Annotated[str, AfterValidator(_dns_label)]
Ttl = Annotated[int, BeforeValidator(_ttl)]
"""A token's life, written as in TokenClients (``1h30m``), in seconds."""
ProofKind = Literal["clientSecret", "oidc", "serviceAccount", "publicKeys", "certificate"]
Network = Annotated[IPv4Network | IPv6Network, Field(union_mode="left_to_right")]


class Section(BaseModel):
    """A part of the configuration: unknown keys are mistakes, not extras."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def is_loopback(address: str) -> bool:
    """Tell whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
