"""A cluster, a Vault and a broker whose operator has set limits: its word would spoil those of other brokers."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from tests.support.broker import BrokerProcess, Tenant
from tests.support.cluster import Cluster
from tests.support.installed import install
from tests.support.lab import Lab

LIMITS: list[dict[str, Any]] = [
    {"namespaces": ["strong", "own-labels"], "strong_accounts": True},
    {"namespaces": ["short"], "max_ttl": "30m"},
    {"namespaces": ["no-secrets"], "proofs": ["oidc", "serviceAccount"]},
    {"namespace_labels": {"tier": "lab"}, "max_ttl": "20m", "unbound_tokens": True},
    {"namespaces": ["labelled"], "max_ttl": "1h"},
    {"namespaces": ["unbound"], "unbound_tokens": True},
    {"namespaces": ["labelled", "short"], "max_ttl": "10m"},
]


@dataclass(frozen=True, slots=True)
class Limited:
    """All of it."""

    lab: Lab
    broker: BrokerProcess

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self.lab.cluster

    async def tenant(self, namespace: str) -> Tenant:
        """Make a namespace that is opted in."""
        return await Tenant.create(self.lab.cluster, namespace)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def limited() -> AsyncIterator[Limited]:
    """Start all of it."""
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        async with BrokerProcess.start(lab, limits=LIMITS) as broker:
            yield Limited(lab, broker)
