"""Reads what a token says, without verifying anything. Pure."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.cli.errors import CommandError
from broker.cli.times import both

NOT_VERIFIED = "signature not verified: anybody can have written this"
_PARTS = 3


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """What a token claims; it may be a lie."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return what ``-o json`` prints."""
        return {"verified": False, "header": dict(self.header), "claims": dict(self.claims)}


def decode(text: str) -> UnverifiedToken:
    """Return a JWT's content (RFC 7519). Raises CommandError, which never quotes the token."""
    parts = text.split(".")
    if len(parts) != _PARTS:
        raise CommandError("this is not a JWT: it does not have three parts with dots between them.")
    return UnverifiedToken(_object(parts[0], "header"), _object(parts[1], "claims"))


def describe(token: UnverifiedToken, now: datetime) -> Iterator[str]:
    """Yield the lines that a person reads."""
    claims, header = token.claims, token.header
    yield NOT_VERIFIED
    yield f"Subject:    {claims.get('sub', '-')}"
    yield f"Issuer:     {claims.get('iss', '-')}"
    yield f"Audiences:  {_audiences(claims.get('aud'))}"
    for name, claim in {"Issued": "iat", "Not before": "nbf", "Expires": "exp"}.items():
        if claim in claims:
            yield f"{name + ':':<11} {_moment(claims[claim], now)}"
    if "exp" not in claims:
        yield "Expires:    never"
    yield f"Id (jti):   {claims.get('jti', '-')}"
    yield f"Key:        {header.get('alg', '-')} {header.get('kid', '')}".rstrip()
    yield from _binding(claims.get("kubernetes.io"))


def _binding(claim: Any) -> Iterator[str]:
    if not isinstance(claim, dict):
        return
    yield f"Namespace:  {claim.get('namespace', '-')}"
    bound = [kind for kind in ("secret", "pod", "node") if isinstance(claim.get(kind), dict)]
    for kind in bound:
        it = claim[kind]
        yield f"Bound to:   {kind} {it.get('name', '-')} (uid {it.get('uid', '-')}): it dies with that"
    if not bound:
        yield "Bound to:   the service account alone"


def _audiences(claim: Any) -> str:
    return ", ".join(map(str, claim)) if isinstance(claim, list) else str(claim or "-")


def _moment(claim: Any, now: datetime) -> str:
    try:
        return both(datetime.fromtimestamp(claim, UTC), now)
    except (TypeError, ValueError, OverflowError, OSError):
        return f"{claim!r}, which is no time"


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise CommandError(f"this is not a JWT: its {what} cannot be read.")
    return document
