"""Whether a stranger can tell by time that a client exists: ``python -m bench.timing``.

Callers that name a client that is there, with a wrong secret, and callers that name one that is not, take turns in
random order on one connection. If nothing can be told, each is slower than the other in half of all pairs (the
probability of superiority, Mann-Whitney's U by the number of pairs). What two halves of the same kind show is printed
beside it, and the smallest difference in microseconds that would have been noticed.
"""

import asyncio
import random
import socket
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from urllib.parse import urlsplit

from broker.identity import secret
from tests.support.broker import BrokerProcess, Tenant, basic
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import free_port

EACH = 6000
WARM_UP = 500
NOTICED = 0.05
"""How far from a half the probability may be: it is 0.5 where nothing can be told, 0 or 1 where everything can."""


class Wire:
    """One connection, and requests that are nothing but bytes."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname or "", address.port or 0), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._count = 0

    def seconds(self, client: str, wrong: str) -> float:
        """Return how long an answer took, which must be 401: each request is of another address, so none is 429."""
        self._count += 1
        address = f"2001:db8::{self._count >> 16:x}:{self._count & 0xFFFF:x}"
        lines = (
            "POST /v1/tokens HTTP/1.1",
            "Host: x",
            f"Authorization: {basic(client, wrong)}",
            f"X-Forwarded-For: {address}",
            "Content-Length: 0",
        )
        request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        started = time.perf_counter()
        self._socket.sendall(request)
        answer = self._socket.recv(65536)
        took = time.perf_counter() - started
        if not answer.startswith(b"HTTP/1.1 401 "):
            raise RuntimeError(f"not refused as expected: {answer[:80]!r}")
        return took

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def superiority(one: Sequence[float], other: Sequence[float]) -> float:
    """Return in which part of all pairs the first is the larger; ties count half."""
    ordered = sorted(other)
    wins = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in one)
    return wins / (2 * len(one) * len(other))


def noticeable_us(sample: Sequence[float]) -> float:
    """Return the smallest shift, in microseconds, that would be noticed against the noise of a sample."""
    halves = sample[::2], sample[1::2]
    shift = 0.0
    while superiority([value + shift * 1e-6 for value in halves[0]], halves[1]) - 0.5 <= NOTICED:
        shift += 0.5
    return shift


def measure(url: str, known: str) -> dict[str, float]:
    """Return the figures; blocking, for it runs in a thread of its own."""
    # Ids of the same length: what differs is whether there is such a client.
    unknown = known[:-1] + ("x" if known[-1] != "x" else "y")
    wrong = secret.generate().reveal()
    wire = Wire(url)
    times: dict[str, list[float]] = {known: [], unknown: []}
    for client in (known, unknown) * WARM_UP:
        wire.seconds(client, wrong)
    order = [known, unknown] * EACH
    random.shuffle(order)
    for client in order:
        times[client].append(wire.seconds(client, wrong))
    wire.close()
    return {
        "timing_known_slower_than_unknown": superiority(times[known], times[unknown]),
        "timing_same_kind": superiority(times[unknown][::2], times[unknown][1::2]),
        "timing_noticeable_us": noticeable_us(times[unknown]),
    }


async def timing() -> dict[str, float]:
    """Start everything and return the figures."""
    async with Lab.start() as lab:
        await install(lab.cluster)
        listen = {"port": free_port(), "trusted_proxies": ["127.0.0.1/32"]}
        async with BrokerProcess.start(lab, log_level="warning", listen=listen) as broker:
            client = await (await Tenant.create(lab.cluster, "timing")).ready_client("client-a")
            return await asyncio.to_thread(measure, broker.url, client.id)


def main() -> int:
    """Print the figures; return 1 where a stranger can tell."""
    figures = asyncio.run(timing())
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    told = abs(figures["timing_known_slower_than_unknown"] - 0.5) > NOTICED
    if told:
        sys.stderr.write(f"bench: strangers can tell by time: more than {NOTICED} from a half\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
