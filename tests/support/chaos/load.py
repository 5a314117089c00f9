"""A steady, bounded load: callers who ask one of the brokers for tokens, and apps that live on what Vault holds."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from broker.kube.token_requests import unverified_claims
from tests.support.broker import BrokerProcess, Registered, Reply
from tests.support.chaos.ledger import NO_ANSWER, AuditTail, Ledger
from tests.support.lab import Lab

PATIENCE_SECONDS = 8.0
"""How long a caller waits for a broker."""

READER_PATIENCE_SECONDS = 2.0
TEMPORARY = frozenset({429, 503, 504})
"""Statuses that have to say when to come back."""


@dataclass(slots=True)
class Turns:
    """The brokers that callers take turns with; one that was ended is in it all the same."""

    brokers: Sequence[BrokerProcess]
    _next: int = 0

    def take(self) -> BrokerProcess:
        """Return whose turn it is."""
        self._next += 1
        return self.brokers[self._next % len(self.brokers)]


@dataclass(slots=True)
class Caller:
    """Asks for tokens, one after the other. ``body`` is what it asks for, ``what`` what that is called.

    ``ids`` are those of the tokens that it received: each must be in the audit log when it gets there.
    """

    what: str
    turns: Turns
    client: Registered
    body: Mapping[str, Any]
    pause: float
    ledger: Ledger
    audit: AuditTail
    ids: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask again and again; the last question is answered before it stops."""
        while not stop.is_set():
            await self.once()
            await asyncio.sleep(self.pause)

    async def once(self) -> None:
        """Ask once."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply = await self.turns.take().call("POST", "/v1/tokens", dict(self.body), auth=self.client.auth)
        except (aiohttp.ClientError, TimeoutError):
            self.ledger.note(self.what, began, NO_ANSWER)
            return
        self.ledger.note(self.what, began, outcome_of(reply))
        if reply.status == 200:
            self._received(reply.body)
        elif reply.status in TEMPORARY and "Retry-After" not in reply.headers:
            self.ledger.forbid(f"{self.what}: {reply.status} {reply.body} does not say when to come back")

    def _received(self, body: Mapping[str, Any]) -> None:
        token = body.get("token")
        if token is None:
            return  # it went into Vault: readers look for its record
        self.ids.append(body["id"])
        self.tokens.append(token)
        if len(self.audit.of(token)) != 1:
            self.ledger.forbid(f"{self.what}: token {body['id']} has {len(self.audit.of(token))} audit records")


def outcome_of(reply: Reply) -> str:
    """Return status and code."""
    return "200" if reply.status == 200 else f"{reply.status} {reply.body['code']}"


@dataclass(slots=True)
class VaultApp:
    """Reads a copy in Vault and calls the API server with it and with the version before, all the time.

    ``versions`` are the tokens' SHA-256 by version, as first read: a version never changes, and none comes back.
    """

    what: str
    lab: Lab
    client: Registered
    ledger: Ledger
    audit: AuditTail
    pause: float = 0.3
    versions: dict[int, str] = field(default_factory=dict)
    spoiled: set[int] = field(default_factory=set)
    """Versions that somebody else wrote or deleted: nobody can use them."""
    anew: bool = False
    """Versions count from 1 again, once, because all that there was is lost."""

    @property
    def path(self) -> str:
        """Where the copy is, below ``data`` or ``metadata``."""
        return f"tokenbroker/lab/{self.client.id}/default"

    def lose(self) -> None:
        """Take note that somebody is about to delete all versions, and what Vault knew of them."""
        self.anew = True
        self.spoiled.clear()

    async def run(self, stop: asyncio.Event) -> None:
        """Read and call again and again."""
        while not stop.is_set():
            await self._timed()
            await asyncio.sleep(self.pause)

    async def token(self, version: int | None = None) -> tuple[int, str] | None:
        """Return a version and its token, the newest by default; None where Vault has none or does not answer."""
        query = f"?version={version}" if version else ""
        try:
            status, answer = await self.lab.vault.api("GET", f"secret/data/{self.path}{query}")
        except (aiohttp.ClientError, TimeoutError):
            return None
        if status != 200:
            return None
        return int(answer["data"]["metadata"]["version"]), str(answer["data"]["data"]["token"])

    async def _timed(self) -> None:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(READER_PATIENCE_SECONDS):
                outcome = await self._use()
        except (aiohttp.ClientError, TimeoutError):
            outcome = NO_ANSWER
        self.ledger.note(self.what, began, outcome)

    async def _use(self) -> str:
        newest = await self.token()
        if newest is None or newest[0] in self.spoiled:
            return NO_ANSWER
        self._seen(*newest)
        before = await self.token(newest[0] - 1) if newest[0] > 1 and newest[0] - 1 not in self.spoiled else None
        for held in filter(None, (newest, before)):
            path = f"/api/v1/namespaces/{self.client.id.partition('/')[0]}/pods?limit=1"
            status, _ = await self.lab.cluster.request("GET", path, token=held[1])
            if status == 401:
                self.ledger.forbid(f"{self.what}: version {held[0]} of {newest[0]} got 401")
            if status != 200:
                return str(status)
        return "200"

    def _seen(self, version: int, token: str) -> None:
        digest = hashlib.sha256(token.encode()).hexdigest()
        if self.anew and (version < max(self.versions, default=0) or self.versions.get(version, digest) != digest):
            self.versions.clear()
            self.anew = False
        if version < max(self.versions, default=0):
            self.ledger.forbid(f"{self.what}: version {version} came after {max(self.versions)}")
        if self.versions.setdefault(version, digest) != digest:
            self.ledger.forbid(f"{self.what}: version {version} was overwritten")
        if unverified_claims(token)["exp"] <= time.time():
            self.ledger.forbid(f"{self.what}: version {version} is there, and has expired")
        if len(self.audit.of(token)) != 1:
            self.ledger.forbid(f"{self.what}: version {version} has {len(self.audit.of(token))} audit records")


class Loop(Protocol):
    """What goes on until it is told to stop; ``what`` is for people."""

    what: str

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until then."""


@asynccontextmanager
async def running(loops: Iterable[Loop]) -> AsyncIterator[None]:
    """Run these for the length of the block, and a call longer. Raises ExceptionGroup of what ended one before."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for loop in loops:
            tasks.create_task(loop.run(stop), name=f"chaos-{loop.what}")
        try:
            yield
        finally:
            stop.set()
