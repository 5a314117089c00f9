"""Clients with tokens of every kind, and how long these work on once something has ended them."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.lab import Lab
from tests.support.processes import until

SINGLE, TOGETHER, VAULT = "single", "together", "vault"
"""Tokens: of a grant with revocation Token, of one with Grant, and the copy of that one in Vault."""

ALL = frozenset({SINGLE, TOGETHER, VAULT})
GRANTS: list[dict[str, Any]] = [
    {"name": SINGLE, "revocation": "Token", "serviceAccount": {"name": "reader"}},
    {"name": TOGETHER, "vault": {}, "serviceAccount": {"name": "reader"}},
]
_POLL_SECONDS, _MOST_SECONDS = 0.1, 90.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A client ``web`` and what it holds; ``neighbour`` has the same of another account."""

    lab: Lab
    broker: BrokerProcess
    tenant: Tenant
    client: Registered
    token_id: str
    tokens: dict[str, str]
    neighbour: dict[str, str]
    said: list["asyncio.Task[tuple[int, str]]"] = field(default_factory=list)
    """Commands that run on after they have done what they were for."""

    @classmethod
    async def create(cls, lab: Lab, broker: BrokerProcess, namespace: str) -> Self:
        """Make a namespace with both clients, and hand tokens out."""
        tenant = await Tenant.create(lab.cluster, namespace)
        for account in ("reader", "other"):
            await tenant.account(account)
        client = await tenant.client("web", *GRANTS)
        others = [grant | {"serviceAccount": {"name": "other"}} for grant in GRANTS]
        neighbour = await tenant.client("other", *others)
        for name in ("web", "other"):
            await until_served(lab, broker, tenant, name)
        token_id, tokens = await handed_out(lab, broker, client)
        return cls(lab, broker, tenant, client, token_id, tokens, (await handed_out(lab, broker, neighbour))[1])

    @property
    def namespace(self) -> str:
        """The namespace's path."""
        return f"/api/v1/namespaces/{self.tenant.namespace}"

    async def works(self, token: str) -> bool:
        """Tell whether the API server knows whose a token is."""
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        status, _ = await self.lab.cluster.request("POST", path, {}, token=token)
        return status == 201

    async def refusals(self, names: Iterable[str]) -> dict[str, float]:
        """Return when each of these was refused; until then each is in the API server's cache of what it accepts."""
        return dict(zip(names, await asyncio.gather(*(self._refused_at(name) for name in names)), strict=True))

    async def alive(self) -> set[str]:
        """Return which tokens work, those of the neighbour as ``other:`` and their kind."""
        held = self.tokens | {f"other:{name}": token for name, token in self.neighbour.items()}
        return {name for name, token in held.items() if await self.works(token)}

    async def patch(self, **spec: Any) -> None:
        """Change the client."""
        await self.tenant.patch("web", spec)

    async def anchors(self, *kinds: str) -> set[str]:
        """Return the UIDs of the client's anchors, of all kinds or of these."""
        wanted = f",tokenbroker.dev/anchor%20in%20({','.join(kinds)})" if kinds else ""
        path = f"{self.namespace}/secrets?labelSelector=tokenbroker.dev/client%3Dweb{wanted}"
        _, listed = await self.lab.cluster.request("GET", path)
        return {it["metadata"]["uid"] for it in listed["items"]}

    async def command(self, *words: str) -> tuple[int, str]:
        """Run the command line about the client as a program of its own; return its end and what it told people."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broker", *words, "-n", self.tenant.namespace, "web"),
            env=os.environ | {"KUBECONFIG": str(self.lab.cluster.kubeconfig)},
            stderr=PIPE,
        )
        _, errors = await process.communicate()
        return process.returncode or 0, errors.decode()

    async def _refused_at(self, name: str) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while await self.works(self.tokens[name]):
            await asyncio.sleep(_POLL_SECONDS)
            if loop.time() - started > _MOST_SECONDS:
                raise AssertionError(f"{name} still works")
        return loop.time()


async def until_served(lab: Lab, broker: BrokerProcess, tenant: Tenant, name: str) -> None:
    """Wait until the broker gives tokens for a client, and has put one into Vault."""
    await broker.until_ready(f"{tenant.namespace}/{name}")

    async def kept() -> bool:
        return await in_vault(lab, f"{tenant.namespace}/{name}") is not None

    await until(kept, what=f"{name} has a copy in Vault")


async def handed_out(lab: Lab, broker: BrokerProcess, client: Registered) -> tuple[str, dict[str, str]]:
    """Return a token of each kind, and the id of the single one."""
    replies = {
        name: await broker.call("POST", "/v1/tokens", {"grant": name}, auth=client.auth) for name in (SINGLE, TOGETHER)
    }
    assert {reply.status for reply in replies.values()} == {200}, {name: it.body for name, it in replies.items()}
    tokens = {name: str(reply.body["token"]) for name, reply in replies.items()}
    kept = await in_vault(lab, client.id)
    assert kept is not None
    return str(replies[SINGLE].body["id"]), tokens | {VAULT: kept}


async def in_vault(lab: Lab, client: str) -> str | None:
    """Return the token that readers of Vault get, or None."""
    status, answer = await lab.vault.api("GET", f"secret/data/tokenbroker/lab/{client}/{TOGETHER}")
    return str(answer["data"]["data"]["token"]) if status == 200 else None


Act = Callable[[Holder], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to end tokens: what it ends, and whether the neighbour's live on."""

    act: Act
    ends: frozenset[str] = ALL
    spares_others: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a way: seconds until each token was refused, which worked then, and who it happened to."""

    seconds: dict[str, float]
    alive: set[str]
    holder: Holder

    @property
    def told(self) -> str:
        """The seconds, for people."""
        return ", ".join(f"{name} {after:.1f} s" for name, after in sorted(self.seconds.items()))


async def tried(lab: Lab, broker: BrokerProcess, name: str, way: Way) -> Outcome:
    """Try one way, in a namespace of its own, on tokens in use; the time runs from when its act is done."""
    holder = await Holder.create(lab, broker, f"revoked-by-{name.replace('_', '-')}")
    if way.spares_others:
        assert len(await holder.alive()) == 2 * len(ALL)
    watching = asyncio.create_task(holder.refusals(sorted(way.ends)))
    await way.act(holder)
    done = asyncio.get_running_loop().time()
    seconds = {one: at - done for one, at in (await watching).items()}
    return Outcome(seconds, await holder.alive(), holder)
