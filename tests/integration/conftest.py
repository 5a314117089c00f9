"""Real servers, started once for all integration tests."""

import hashlib
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.broker import BrokerProcess, Tenant, install
from tests.support.lab import Lab


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab() -> AsyncIterator[Lab]:
    """Start a cluster and a Vault for the whole session; tests make their own namespaces in it."""
    async with Lab.start() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(lab: Lab) -> Lab:
    """Apply deploy/base to the cluster."""
    await install(lab.cluster)
    return lab


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(installed: Lab) -> AsyncIterator[BrokerProcess]:
    """Run one broker for all tests that do not harm it."""
    async with BrokerProcess.start(installed) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(installed: Lab, request: pytest.FixtureRequest) -> Tenant:
    """Make a namespace of the test's own, named after it."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))
    return await Tenant.create(installed.cluster, f"{name[:50].strip('-')}-{digest}")
