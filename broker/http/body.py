"""Request bodies: bounded in size, time, depth and shape before anything looks at them."""

import asyncio
import json
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from aiohttp import web

from broker.errors import BrokerError, Reason

MAX_BODY_BYTES = 16 * 1024
MAX_PARAMETERS = 32


async def read_object(request: web.BaseRequest, timeout_seconds: float) -> dict[str, str | bool | None]:
    """Return the request's JSON object, whose values are strings, booleans or null.

    An empty body is an empty object. Raises BrokerError: unsupported_media_type, body_too_large,
    request_timeout, invalid_request.
    """
    data = await _read(request, timeout_seconds)
    if not data:
        return {}
    if request.content_type != "application/json":
        raise BrokerError(Reason.UNSUPPORTED_MEDIA_TYPE, "Send the request as application/json.")
    return _parse(data)


async def read_form(request: web.BaseRequest, timeout_seconds: float) -> dict[str, str]:
    """Return the parameters of an OAuth request (RFC 6749, 3.2); those without a value count as left out.

    Raises BrokerError like :func:`read_object`; invalid_request where a parameter is there twice.
    """
    data = await _read(request, timeout_seconds)
    if request.content_type != "application/x-www-form-urlencoded":
        raise BrokerError(Reason.UNSUPPORTED_MEDIA_TYPE, "Send the request as application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(data.decode(), strict_parsing=bool(data), max_num_fields=MAX_PARAMETERS, errors="strict")
    except ValueError:
        raise _invalid("The request's body is not a form.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _invalid("The request's body names a parameter twice.")
    return form


async def _read(request: web.BaseRequest, timeout_seconds: float) -> bytes:
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise _too_large()
    if not request.body_exists:
        return b""
    content = request.content
    if content.is_eof():  # the usual case: it came together with the headers
        there = content.read_nowait()
        if len(there) > MAX_BODY_BYTES:  # of a chunked one no length was told
            raise _too_large()
        return there
    data = bytearray()
    try:
        # aiohttp has no deadline for a body that drips one byte at a time.
        async with asyncio.timeout(timeout_seconds):
            async for chunk in content.iter_any():
                data += chunk
                if len(data) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise BrokerError(Reason.REQUEST_TIMEOUT, "The request's body did not arrive in time.") from None
    except (web.RequestPayloadError, ValueError):
        raise _invalid("The request's body is not complete.") from None
    return bytes(data)


def _parse(data: bytes) -> dict[str, str | bool | None]:
    try:
        document = _DECODER.decode(data.decode())
    except BrokerError:
        raise
    except (ValueError, RecursionError):
        raise _invalid("The request's body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid("The request's body must be a JSON object.")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _invalid("The request's body names a field twice.")
    return document


def _no_constant(_name: str) -> NoReturn:
    raise _invalid("The request's body is not valid JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _too_large() -> BrokerError:
    return BrokerError(Reason.BODY_TOO_LARGE, f"The request's body is larger than {MAX_BODY_BYTES} bytes.")


def _invalid(detail: str) -> BrokerError:
    return BrokerError(Reason.INVALID_REQUEST, detail)
