"""What happens to clients all the while: each round ends with what has to hold, or with a broken promise."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from broker.kube.token_requests import unverified_claims
from tests.support.broker import BrokerProcess, Registered, Reply
from tests.support.chaos.setting import BY_ITSELF, DUE_SECONDS, ON_DEMAND, READER
from tests.support.soak.ground import CALL_SECONDS, DEAD_SECONDS, BrokenPromise, Ground, code_of, comes

DEFAULT, SINGLE = "default", "single"
GRANTS: list[dict[str, Any]] = [
    {"name": DEFAULT, "reuse": "10s", "vault": ON_DEMAND, **READER},
    {"name": SINGLE, "revocation": "Token", **READER},
]
CROWD, SHARED = 8, 2
"""So many ask at once, and get so many tokens at most: the time for which one is shared may end meanwhile."""

SILENT_SECONDS = 90.0 + 1.0
"""Nobody suspended is served later, whatever the watches do (docs/security-model.md)."""

LOOKS = 3
"""So often each broker is asked for a token of a client that it knows to be suspended."""

LATE_SECONDS = 90.0
"""A copy is replaced within this after it was due, whatever fails meanwhile.

A fault lasts 2 to 8 s, and the next one comes 3 to 6 s after all is well again.
"""

PAUSE_SECONDS = 3.0
SUSPENDED, GONE = (403, "client_suspended"), (401, "invalid_client")


async def revoked(ground: Ground) -> None:
    """End one token by its id, at any broker; nothing else ends."""
    client = ground.clients["ended"]
    (token_id, token), (_, other) = [
        await ground.token(ground.dice.choice(ground.brokers), client, SINGLE) for _ in range(2)
    ]

    async def ended() -> bool:
        broker = ground.dice.choice(ground.brokers)
        return (await broker.call("DELETE", f"/v1/tokens/{token_id}", auth=client.auth)).status == 204

    await comes(ended, "a token is revoked")
    await ground.die([token], "one token was revoked", within=DEAD_SECONDS)
    await comes(lambda: ground.alive(other), "a token that was not revoked works")


async def suspended(ground: Ground) -> None:
    """End all tokens of a client, also in Vault; none is handed out until it is resumed, and then all goes on."""
    client = ground.clients["swing"]
    held = [await ground.kept(client), *await ground.tokens(client, DEFAULT, SINGLE)]
    await ground.suspend("swing", suspended=True)
    await _refused(ground, client)
    for _ in range(LOOKS):
        for broker in ground.brokers:
            if await _served(ground, broker, client):
                raise BrokenPromise("a broker that knew of the suspension served the client again")
        await asyncio.sleep(1.0)
    await ground.die(held, "a client was suspended")
    await ground.suspend("swing", suspended=False)
    await ground.tokens(client, DEFAULT, SINGLE)
    await ground.kept(client, after=held[0])


async def registered(ground: Ground) -> None:
    """Let a client come, be served by every broker and in Vault, and go with all that it had."""
    client = await ground.register("guest", *GRANTS)
    held = [await ground.kept(client), *await ground.tokens(client, DEFAULT, SINGLE)]
    await ground.remove("guest")
    await ground.answered(client, DEFAULT, GONE)
    await ground.die(held, "a client was removed")
    await ground.nothing_kept(client)


async def all_revoked(ground: Ground) -> None:
    """End what was handed out, with ``--now`` also what is in Vault; new tokens come at once."""
    client = ground.clients["mass"]
    kept, held = await ground.kept(client), await ground.tokens(client, DEFAULT, SINGLE)
    now = ground.dice.random() < 0.5
    await ground.revoke_all("mass", *(("--now",) if now else ()))
    await ground.die([*held, *([kept] if now else [])], "revoke-all", within=DEAD_SECONDS)
    await ground.tokens(client, DEFAULT, SINGLE)
    await ground.kept(client, after=kept)
    if not now:
        await comes(lambda: ground.alive(kept), "the version before works on for its readers")


async def renewed(ground: Ground) -> None:
    """Let a copy come due, which nobody asks for: it is replaced in time, and the version before works on."""
    client = ground.clients["still"]
    before = await ground.kept(client)
    after = await ground.kept(client, after=before)
    late = unverified_claims(after)["iat"] - unverified_claims(before)["iat"] - DUE_SECONDS
    if late > LATE_SECONDS:
        raise BrokenPromise(f"a copy was replaced {late:.0f} s after it was due")
    await comes(lambda: ground.alive(before), "the version before works on for its readers")


async def shared(ground: Ground) -> None:
    """Ask as instances of one client do at their start: they share a token, with a record each."""
    client, broker = ground.clients["crowd"], ground.dice.choice(ground.brokers)
    asking = [_asked(ground, broker, client) for _ in range(CROWD)]
    got = [reply.body["token"] for reply in await asyncio.gather(*asking) if reply and reply.status == 200]
    if len({*got}) > SHARED:
        raise BrokenPromise(f"{len(got)} who asked at once got {len({*got})} tokens")
    for token in {*got}:
        records = len(ground.scene.audit.of(token))
        if records < got.count(token):
            raise BrokenPromise(f"a token was handed out {got.count(token)} times and recorded {records} times")


@dataclass(slots=True)
class Cycle:
    """One thing that happens again and again, and how long each time took."""

    what: str
    once: Callable[[Ground], Awaitable[None]]
    ground: Ground
    pause: float = PAUSE_SECONDS
    took: list[float] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Do it until told to stop; what was begun is brought to its end."""
        while not stop.is_set():
            began = self.ground.scene.now
            try:
                await self.once(self.ground)
            except BrokenPromise as broken:
                self.ground.scene.ledger.forbid(f"{self.what}: {broken}")
            else:
                self.took.append(self.ground.scene.now - began)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pause):
                    await stop.wait()

    def line(self) -> str:
        """Tell how often it was done, and how long that took."""
        took = sorted(self.took) or [0.0]
        return f"{self.what}: {len(self.took)} times; {took[len(took) // 2]:.1f} s, at most {took[-1]:.1f} s"


async def cycles(ground: Ground, pause: float) -> list[Cycle]:
    """Register who stays, and return what happens; tokens with an end of their own are made each ``pause`` seconds."""
    for name in ("ended", "swing", "mass", "crowd"):
        await ground.register(name, *GRANTS)
    await ground.register("still", READER | {"vault": BY_ITSELF})
    pause = max(PAUSE_SECONDS, pause)
    return [
        Cycle("a token revoked", revoked, ground, pause),
        Cycle("a client suspended and resumed", suspended, ground, pause),
        Cycle("a client registered and removed", registered, ground),
        Cycle("revoke-all", all_revoked, ground, pause),
        Cycle("a copy replaced when it was due", renewed, ground),
        Cycle(f"{CROWD} who share a token", shared, ground),
    ]


def counted(done: Iterable[Cycle]) -> list[str]:
    """Tell of each."""
    return [one.line() for one in done]


async def _refused(ground: Ground, client: Registered) -> None:
    """Wait until each broker refuses a client that was just suspended."""
    began = ground.scene.now

    async def refused() -> bool:
        asked = ground.scene.now
        replies = [await ground.ask(broker, client, DEFAULT) for broker in ground.brokers]
        if any(reply.status == 200 for reply in replies) and asked > began + SILENT_SECONDS:
            raise BrokenPromise(f"a client was served {asked - began:.0f} s after it was suspended")
        return all((reply.status, code_of(reply)) == SUSPENDED for reply in replies)

    await comes(refused, "each broker refuses a client that is suspended")


async def _served(ground: Ground, broker: BrokerProcess, client: Registered) -> bool:
    reply = await _asked(ground, broker, client)
    return reply is not None and reply.status == 200


async def _asked(ground: Ground, broker: BrokerProcess, client: Registered) -> Reply | None:
    """Return the answer, or None where there is none."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await ground.ask(broker, client, DEFAULT)
    except (aiohttp.ClientError, TimeoutError):
        return None
