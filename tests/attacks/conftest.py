"""Who attacks: see :mod:`tests.support.locks`."""

import pytest

from tests.support.broker import Tenant
from tests.support.locks import Thief


@pytest.fixture
async def thief(tenant: Tenant) -> Thief:
    """Return a thief of the broker's credential, and a namespace where the broker may mint."""
    return await Thief.steal(tenant)
