"""Two replicas, and a broker with clients in files, watched by one Prometheus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from tests.support.alerted import Expected, Fired, remove, until_fired
from tests.support.broker import BrokerProcess, Tenant
from tests.support.certificates import Authority
from tests.support.chaos.leading import LEASE_SECONDS, SLACK, until_one_leads
from tests.support.chaos.proxy import ChaosProxy
from tests.support.chaos.setting import proxy_of
from tests.support.lab import Lab
from tests.support.processes import free_port
from tests.support.registries import DirectorySource
from tests.support.scripted import Reply
from tests.support.watching import Watching

FIRST, SECOND, FILES = "tokenbroker-0", "tokenbroker-1", "files-0"
"""What Prometheus calls them: their label ``instance``."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/tokenbroker/leases"
_ASKED_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas, each behind a proxy; ``filed`` has the ``clients`` and a certificate of the ``authority``."""

    lab: Lab
    tenant: Tenant
    brokers: list[BrokerProcess]
    proxies: list[ChaosProxy]
    filed: BrokerProcess
    clients: DirectorySource
    authority: Authority
    watching: Watching

    @classmethod
    @asynccontextmanager
    async def start(cls, lab: Lab, name: str, rules: dict[str, Any]) -> AsyncIterator[Self]:
        """Start all; on leaving, end them and the tenant's namespace, which is called ``name`` as the Lease is."""
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            proxies = [await enter(proxy_of(lab, f"{name}-{number}")) for number in range(2)]
            brokers = [await enter(_replica(lab, name, number, proxy)) for number, proxy in enumerate(proxies)]
            clients, authority = DirectorySource(lab.folder / f"{name}-clients"), _authority(lab, name)
            await clients.swap({})
            filed = await enter(_filed(lab, name, clients, authority))
            others = [(brokers[1], {"instance": SECOND}), (filed, {"instance": FILES, "cluster": "files"})]
            watching = Watching.start(lab, brokers[0], rules, labels={"instance": FIRST}, others=others)
            tenant = await Tenant.create(lab.cluster, name)
            yield cls(lab, tenant, brokers, proxies, filed, clients, authority, await enter(watching))
            if brokers[0].program.running:
                await remove(lab.cluster, name)

    @property
    def lease(self) -> str:
        """Where the Lease of the two replicas is."""
        return f"{LEASES}/{self.tenant.namespace}"

    async def until_one_leads(self, *others: int) -> int:
        """Wait until one replica leads that is none of the ``others``, and return its number."""
        return await until_one_leads(self, *others, seconds=LEASE_SECONDS + 2 * SLACK)

    def hurt_lease(self, number: int, reply: Reply) -> None:
        """Answer a replica's calls about its Lease in this way."""
        self.proxies[number].hurt(f"(GET|PUT) {LEASES}/", reply)

    async def fired(self, expected: Expected, ask: Callable[[], Awaitable[object]] | None = None) -> Fired:
        """Return what fires once all of the expected alerts do."""
        return await until_fired(self.watching, expected, ask or _nobody)


def _replica(lab: Lab, name: str, number: int, proxy: ChaosProxy) -> AbstractAsyncContextManager[BrokerProcess]:
    own = f"{name}-{number}"
    token = lab.folder / own / "token"
    kubernetes = {"server": proxy.url, "ca_file": str(proxy.ca_file), "token_file": str(token)}
    lease = {"name": name, "duration_seconds": LEASE_SECONDS}
    return BrokerProcess.start(lab, own, kubernetes=kubernetes, lease=lease)


def _authority(lab: Lab, name: str) -> Authority:
    folder = lab.folder / f"{name}-tls"
    folder.mkdir()
    return Authority.create(folder, name)


def _filed(
    lab: Lab, name: str, clients: DirectorySource, authority: Authority
) -> AbstractAsyncContextManager[BrokerProcess]:
    files = authority.server("broker")
    listen = {"port": free_port(), "tls": {"cert_file": str(files.certificate), "key_file": str(files.key)}}
    return BrokerProcess.start(lab, f"{name}-filed", listen=listen, registry={"directory": str(clients.folder)})


async def _nobody() -> None:
    """Ask for nothing, for a moment."""
    await asyncio.sleep(_ASKED_SECONDS)
