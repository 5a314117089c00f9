"""A namespace whose clients come, go and lose their tokens while faults happen: what is done there, and waited for."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import aiohttp

from tests.support.broker import BrokerProcess, Registered, Reply, Tenant
from tests.support.chaos.invariants import left_of
from tests.support.chaos.scene import Scene
from tests.support.processes import ProgramError, until

PATIENCE_SECONDS = 180.0
"""No fault lasts as long: what has not come about by then will not."""

CALL_SECONDS = 5.0
POLL_SECONDS = 0.7
DEAD_SECONDS = 15.0 + 5.0
"""What docs/revocation.md promises, and what a busy machine may add."""


class BrokenPromise(Exception):  # noqa: N818 - what it stands for
    """Something that has to come about did not; the message says what."""


@dataclass(slots=True)
class Ground:
    """The namespace, its clients by name, and everybody who has to do with them."""

    scene: Scene
    tenant: Tenant
    dice: random.Random
    clients: dict[str, Registered] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, scene: Scene, name: str, dice: random.Random) -> AsyncIterator[Self]:
        """Make the namespace, and see on leaving that nothing is left of its clients; what is left is a violation."""
        tenant = await Tenant.create(scene.lab.cluster, name)
        await tenant.account("reader")
        ground = cls(scene, tenant, dice)
        yield ground
        for client in [*ground.clients]:
            await ground.remove(client)
        try:
            await comes(ground._nothing_is_left, "no anchor and no copy is left of clients that have gone")
        except BrokenPromise as broken:
            scene.ledger.forbid(str(broken))

    @property
    def brokers(self) -> Sequence[BrokerProcess]:
        """All that serve."""
        return self.scene.brokers

    async def register(self, name: str, *grants: dict[str, Any]) -> Registered:
        """Register a client, however often nobody answers."""

        async def registered() -> bool:
            await self._delete(name)  # an answer that was lost may have left one, of which nobody knows the secret
            self.clients[name] = await self.tenant.client(name, *grants)
            return True

        await comes(registered, f"{name} is registered")
        return self.clients[name]

    async def remove(self, name: str) -> None:
        """Delete a client, and wait until it is gone."""

        async def gone() -> bool:
            return await self._delete(name) == 404

        await comes(gone, f"the TokenClient {name} is gone")
        del self.clients[name]

    async def suspend(self, name: str, *, suspended: bool) -> None:
        """Suspend a client, or let it go on."""

        async def changed() -> bool:
            await self.tenant.patch(name, {"suspend": suspended})
            return True

        await comes(changed, f"{name} is patched")

    async def revoke_all(self, name: str, *options: str) -> None:
        """Run ``tokenbroker client revoke-all`` until it has seen that all is done."""

        async def done() -> bool:
            words = ("client", "revoke-all", *options, "-n", self.tenant.namespace, name)
            return await self._command(*words) == 0

        await comes(done, f"revoke-all of {name} sees its work done", call_seconds=90.0)

    async def ask(self, broker: BrokerProcess, client: Registered, grant: str) -> Reply:
        """Ask for a token. Raises aiohttp.ClientError."""
        return await broker.call("POST", "/v1/tokens", {"grant": grant}, auth=client.auth)

    async def token(self, broker: BrokerProcess, client: Registered, grant: str) -> tuple[str, str]:
        """Return a token's id and the token, once the broker hands one out that the API server takes."""
        got: list[tuple[str, str]] = []

        async def handed_out() -> bool:
            reply = await self.ask(broker, client, grant)
            if reply.status != 200:
                return False
            got[:] = [(reply.body["id"], reply.body["token"])]
            if not self.scene.audit.of(got[0][1]):
                self.scene.ledger.forbid(f"token {got[0][0]} of {client.id} has no audit record")
            return await self.alive(got[0][1])

        await comes(handed_out, f"{client.id} gets a token of {grant} that works")
        return got[0]

    async def tokens(self, client: Registered, *grants: str) -> list[str]:
        """Return a token of each of these grants from each broker."""
        pairs = [(broker, grant) for broker in self.brokers for grant in grants]
        return [token for _, token in await asyncio.gather(*(self.token(one, client, of) for one, of in pairs))]

    async def alive(self, token: str) -> bool:
        """Tell whether the API server knows whose a token is. Raises RuntimeError where it does not say."""
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        status, _ = await self.scene.lab.cluster.request("POST", path, {}, token=token)
        if status not in {201, 401}:
            raise RuntimeError(f"the API server answers {status}")
        return status == 201

    async def die(self, tokens: Iterable[str], why: str, *, within: float = PATIENCE_SECONDS) -> None:
        """Wait until tokens are refused, each; one that works later than ``within`` seconds is a broken promise."""
        began = self.scene.now
        for token in tokens:

            async def dead(token: str = token) -> bool:
                asked = self.scene.now
                works = await self.alive(token)
                if works and asked > began + within:
                    raise BrokenPromise(f"{why}: a token works {asked - began:.0f} s later")
                return not works

            await comes(dead, f"{why}: its tokens are refused")

    async def answered(self, client: Registered, grant: str, outcome: tuple[int, str]) -> None:
        """Wait until each broker answers with a status and code."""

        async def so() -> bool:
            replies = [await self.ask(broker, client, grant) for broker in self.brokers]
            return all((reply.status, code_of(reply)) == outcome for reply in replies)

        await comes(so, f"each broker answers {client.id} {outcome}")

    async def kept(self, client: Registered, *, after: str | None = None) -> str:
        """Return the token in Vault once it works, and is not the one that stood there."""
        found: list[str] = []

        async def there() -> bool:
            status, answer = await self.scene.lab.vault.api("GET", f"secret/data/{self._path(client)}")
            found[:] = [str(answer["data"]["data"]["token"])] if status == 200 else []
            return status == 200 and found[0] != after and await self.alive(found[0])

        await comes(there, f"{client.id} has a token in Vault that works")
        return found[0]

    async def nothing_kept(self, client: Registered) -> None:
        """Wait until Vault has nothing of a client."""

        async def nothing() -> bool:
            return (await self.scene.lab.vault.api("GET", f"secret/metadata/{self._path(client)}"))[0] == 404

        await comes(nothing, f"Vault has nothing of {client.id}")

    async def _nothing_is_left(self) -> bool:
        return not await left_of(self.scene.lab, self.tenant)

    async def _delete(self, name: str) -> int:
        return (await self.scene.lab.cluster.request("DELETE", f"{self.tenant.path}/{name}"))[0]

    async def _command(self, *words: str) -> int:
        """Run the command line as a program of its own, and return its end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broker", *words),
            env=os.environ | {"KUBECONFIG": str(self.scene.lab.cluster.kubeconfig)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            return await process.wait()
        finally:
            with suppress(ProcessLookupError):
                process.kill()

    def _path(self, client: Registered) -> str:
        return f"tokenbroker/lab/{client.id}/default"


def code_of(reply: Reply) -> str:
    """Return the code of a refusal, or nothing."""
    return str(reply.body.get("code", "")) if isinstance(reply.body, dict) else ""


async def comes(check: Callable[[], Awaitable[bool]], what: str, *, call_seconds: float = CALL_SECONDS) -> None:
    """Wait until a check answers true, however often nobody answers it. Raises BrokenPromise."""
    try:
        await until(partial(_told, check, call_seconds), what=what, seconds=PATIENCE_SECONDS, pause=POLL_SECONDS)
    except ProgramError as error:
        raise BrokenPromise(str(error)) from error


async def _told(check: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Return the answer; false where there is none, or a server in trouble gave it."""
    try:
        async with asyncio.timeout(seconds):
            return await check()
    except (aiohttp.ClientError, TimeoutError, RuntimeError):
        return False
