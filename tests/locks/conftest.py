"""A cluster in which no broker runs: what is refused here is refused by the locks. Who attacks: tests.support.locks."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.broker import Tenant
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.locks import Thief


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def installed() -> AsyncIterator[Lab]:
    """Apply deploy/base to a cluster that tests of brokers do not share."""
    async with Lab.start() as lab:
        await install(lab.cluster)
        yield lab


@pytest.fixture
async def thief(tenant: Tenant) -> Thief:
    """Return a thief of the broker's credential, and a namespace where the broker may mint."""
    return await Thief.steal(tenant)
