"""The address of a caller behind proxies: only what trusted ones say."""

from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from broker.http.remote import remote_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]


def remote(peer: str, *forwarded: str) -> str:
    """Return the address that counts for a connection from ``peer`` with these headers."""
    headers = CIMultiDict(("X-Forwarded-For", one) for one in forwarded)
    return remote_address(make_mocked_request("GET", "/", headers=headers).clone(remote=peer), TRUSTED)


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
        ("2001:db8::1", ["2001:db9::1"], "2001:db9::1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.1:1234"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%" + "x" * 4000], "10.0.0.1"),
    ],
)
def test_the_nearest_address_that_nobody_trusted_is(peer: str, forwarded: list[str], address: str) -> None:
    """From the right, as far as trusted proxies vouch for it."""
    assert remote(peer, *forwarded) == address
