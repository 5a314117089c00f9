"""What a second replica costs, which follows the one that leads.

It speaks to the API server by way of a proxy that counts its requests: all of them, those for the Lease and for the
admission policies, too. So ``calls_a_minute`` is the same however many are registered, if no call of a follower is for
a client; ``start_calls`` has the pages of its lists, of 500 objects each. Watches that begin are one call each, and
what they tell of is none.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bench.bounds import say
from bench.errors import BenchError
from bench.growth import Followed
from bench.process import resident_megabytes
from tests.support.broker import BrokerProcess, Registered
from tests.support.killing_proxy import KillingProxy
from tests.support.lab import Lab

NAME = "follower"
FOLLOWING_SECONDS = 60.0
"""For so long it is left alone once it is ready."""


async def follow(lab: Lab, lease: Mapping[str, Any], client: Registered) -> Followed:
    """Start a replica beside the one that holds ``lease``, and return what it costs; its memory is that at the end.

    ``client`` gets a token of it after that. Raises BenchError where it gets none, or where the replica leads, and
    ProgramError where it does not get ready.
    """
    folder = lab.folder / f"{NAME}-proxy"
    folder.mkdir()
    async with KillingProxy.start(lab.cluster, folder) as proxy:
        lines = proxy.arm(lambda _: True)
        server = {"server": proxy.url, "ca_file": str(proxy.ca_file), "token_file": str(lab.folder / NAME / "token")}
        async with BrokerProcess.start(lab, NAME, log_level="warning", lease=lease, kubernetes=server) as broker:
            followed = await _counted(broker, lines)
            await _check(broker, client)
    return followed


async def _counted(broker: BrokerProcess, lines: list[str]) -> Followed:
    """Return what one costs that is ready now. ``lines`` are its requests, and become more."""
    at_start, ready_at = len(lines), time.monotonic()
    await asyncio.sleep(FOLLOWING_SECONDS)
    calls, minutes = len(lines) - at_start, (time.monotonic() - ready_at) / 60
    resident = resident_megabytes(broker.program.pid)
    say(f"a follower's calls: {_kinds(lines[:at_start])} until it was ready, {_kinds(lines[at_start:])} since")
    return Followed(at_start, round(calls / minutes, 1), round(resident, 2))


async def _check(broker: BrokerProcess, client: Registered) -> None:
    """Raise BenchError where it has not followed, or knows too little to issue."""
    if "tokenbroker_leader 0.0" not in (await broker.metrics()).splitlines():
        raise BenchError("the second replica leads, so it is not known what a follower costs")
    await handed_out(broker, client)


async def handed_out(broker: BrokerProcess, client: Registered) -> None:
    """Have a token issued. Raises BenchError where that is refused."""
    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    if reply.status != 200:
        raise BenchError(f"a broker that is ready answered {reply.status}: {reply.body}")


def _kinds(lines: list[str]) -> dict[str, int]:
    """Return how often each path was asked for, the most frequent first."""
    return dict(Counter(line.partition("?")[0] for line in lines).most_common())
