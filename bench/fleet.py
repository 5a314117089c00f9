"""Very many registered clients on the real API server, made by many hands at once."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import orjson

from bench.errors import BenchError
from bench.hands import HANDS, each
from broker.identity import secret
from tests.support.broker import Tenant, token_client
from tests.support.cluster import Cluster

PER_NAMESPACE = 100
ACCOUNT = "reader"
RENEW_BEFORE = 480
"""How many seconds ahead of its expiry a copy is due."""

CONTENT_TYPES = {"PATCH": "application/merge-patch+json"}


@dataclass(slots=True)
class Fleet:
    """Clients ``fleet-NN/client-NNNNN``, a hundred a namespace, that share one secret, and an account a namespace.

    Each has one grant, which is kept in Vault too. ``renewed_after`` so many seconds, the last of the copies that were
    written is due.
    """

    cluster: Cluster
    session: aiohttp.ClientSession
    secret: str
    renewed_after: int
    size: int = 0
    namespaces: list[Tenant] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def of(cls, cluster: Cluster, renewed_after: int) -> AsyncIterator[Self]:
        """Begin without any. ``renewed_after`` is 120 at least."""
        trust = ssl.create_default_context(cafile=str(cluster.ca_file))
        headers = {"Authorization": f"Bearer {cluster.admin_token}"}
        connector = aiohttp.TCPConnector(limit=HANDS, ssl=trust)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            yield cls(cluster, session, secret.generate().reveal(), renewed_after)

    def id(self, number: int) -> str:
        """Return a client's id."""
        return f"{self._namespace(number)}/{_name(number)}"

    async def grow(self, size: int) -> None:
        """Register clients until there are so many. Raises BenchError."""
        for number in range(len(self.namespaces), -(-size // PER_NAMESPACE)):
            tenant = await Tenant.create(self.cluster, f"fleet-{number:03}")
            await tenant.account(ACCOUNT)
            self.namespaces.append(tenant)
        digests = [secret.format_digest(secret.digest(self.secret))]
        await each(range(self.size, size), lambda number: self._register(number, digests))
        self.size = size

    async def add(self, name: str) -> str:
        """Register one more client, in the first namespace, and return its id. Raises BenchError."""
        await self._create(self._namespace(0), name, [secret.format_digest(secret.digest(self.secret))])
        return f"{self._namespace(0)}/{name}"

    async def patch(self, number: int, change: dict[str, Any]) -> None:
        """Change a client. Raises BenchError."""
        await self._call("PATCH", f"{_path(self._namespace(number))}/{_name(number)}", change, 200)

    async def _register(self, number: int, digests: list[str]) -> None:
        await self._create(self._namespace(number), _name(number), digests)

    async def _create(self, namespace: str, name: str, digests: list[str]) -> None:
        vault = {"ttl": f"{self.renewed_after + RENEW_BEFORE}s", "renewBefore": f"{RENEW_BEFORE}s"}
        body = token_client(
            namespace,
            name,
            authentication=[{"clientSecret": {"digests": digests}}],
            grants=[{"serviceAccount": {"name": ACCOUNT}, "vault": vault}],
        )
        await self._call("POST", _path(namespace), body, 201)

    async def _call(self, method: str, path: str, body: dict[str, Any], expected: int) -> None:
        content = {"Content-Type": CONTENT_TYPES.get(method, "application/json")}
        url = self.cluster.server + path
        async with self.session.request(method, url, data=orjson.dumps(body), headers=content) as answer:
            text = await answer.text()
            if answer.status != expected:
                raise BenchError(f"{method} {path} answered {answer.status}: {text[:300]}")

    def _namespace(self, number: int) -> str:
        return f"fleet-{number // PER_NAMESPACE:03}"


def _path(namespace: str) -> str:
    return f"/apis/tokenbroker.dev/v1alpha1/namespaces/{namespace}/tokenclients"


def _name(number: int) -> str:
    return f"client-{number:05}"
