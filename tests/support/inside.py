"""The parts of a broker that hold tokens, made in this process around a real cluster and a real Vault."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from broker.clock import SystemClock
from broker.config import Config, VaultConfig, load
from broker.kube.anchors import KubeAnchors
from broker.kube.answer import Answer
from broker.kube.session import KubeSession
from broker.kube.token_requests import TokenRequests
from broker.metrics.counted import Metrics
from broker.model.anchor import grant_anchor
from broker.model.client import Client
from broker.model.token import MintedToken, TokenSpec
from broker.registration.manifest import read_registration
from broker.vault.login import VaultLogin
from broker.vault.store import KvStore
from broker.vault.transport import VaultTransport
from tests.support.broker import CONFIG, BrokerProcess, Registered, Tenant

AUDIENCE = "https://kubernetes.default.svc.cluster.local"


@dataclass(slots=True)
class Overheard:
    """Stands before a session, and keeps the last answer."""

    session: KubeSession
    heard: list[Answer] = field(default_factory=list)

    async def call(self, method: str, path: str, body: dict[str, Any], *, repeatable: bool) -> Answer:
        """Make a call."""
        self.heard.append(await self.session.call(method, path, body, repeatable=repeatable))
        return self.heard[-1]


@dataclass(frozen=True, slots=True)
class Inside:
    """Parts that are logged in, with a client, and a token that was minted for it."""

    config: Config
    registered: Registered
    client: Client
    session: KubeSession
    spec: TokenSpec
    token: MintedToken
    answer: Answer
    transport: VaultTransport
    login: VaultLogin

    @classmethod
    @asynccontextmanager
    async def of(cls, broker: BrokerProcess, tenant: Tenant) -> AsyncIterator[Self]:
        """Make the parts with the configuration of a broker, and a client in the tenant's namespace."""
        config = load(broker.folder / CONFIG)
        registered = await tenant.ready_client("reader", vault={"ttl": "1h"})
        client = await read_client(tenant, "reader")
        async with session_of(config) as session, login_of(vault_of(config)) as (transport, login):
            anchor = await KubeAnchors(session).ensure(client, grant_anchor(client.uid, client.grants[0]))
            spec = TokenSpec(tenant.namespace, "reader", AUDIENCE, 600, anchor)
            overheard = Overheard(session)
            token = await TokenRequests(overheard, Metrics()).mint(spec)
            await login.call("POST", "/v1/auth/token/renew-self", {})
            yield cls(config, registered, client, session, spec, token, overheard.heard[-1], transport, login)

    @property
    def vault(self) -> VaultConfig:
        """How Vault is reached."""
        return vault_of(self.config)

    @property
    def store(self) -> KvStore:
        """What writes into Vault."""
        return KvStore(self.login.call, "secret", SystemClock())


async def read_client(tenant: Tenant, name: str) -> Client:
    """Return a client as the registry reads it."""
    _, resource = await tenant.cluster.request("GET", f"{tenant.path}/{name}")
    client = read_registration(resource).client
    assert client is not None
    return client


def session_of(config: Config, **changes: Any) -> KubeSession:
    """Return a session with the API server that is not open yet."""
    kube = config.kubernetes.model_copy(update=changes)
    return KubeSession(kube.server, kube.ca_file, kube.token_file, kube.timeout_seconds)


def vault_of(config: Config) -> VaultConfig:
    """Return the section about Vault, which each broker of the tests has."""
    assert config.vault is not None
    return config.vault


@asynccontextmanager
async def login_of(vault: VaultConfig, **changes: Any) -> AsyncIterator[tuple[VaultTransport, VaultLogin]]:
    """Open a transport to Vault, and a login that is not used yet."""
    vault = vault.model_copy(update=changes)
    token_file: Path = vault.token_file
    async with (
        VaultTransport(vault.address, vault.ca_file, vault.timeout_seconds) as transport,
        VaultLogin(
            transport,
            mount=vault.auth_mount,
            role=vault.auth_role,
            token_file=token_file,
            clock=SystemClock(),
            metrics=Metrics().vault,
        ) as login,
    ):
        yield transport, login
