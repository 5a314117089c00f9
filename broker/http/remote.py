"""The address of a caller, also behind proxies that the operator trusts."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web

Networks = Sequence[IPv4Network | IPv6Network]


def remote_address(request: web.BaseRequest, trusted: Networks) -> str:
    """Return the nearest address that is no trusted proxy's: from the right of ``X-Forwarded-For``.

    What stands further left was written by somebody whom nobody vouches for.
    """
    address = request.remote or ""
    if not trusted:
        return address
    hops = [hop.strip() for line in request.headers.getall("X-Forwarded-For", ()) for hop in line.split(",")]
    while hops and _within(address, trusted) and _is_address(hops[-1]):
        address = hops.pop()
    return address


def _within(address: str, networks: Networks) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # a zone may hold anything, and means nothing to others
