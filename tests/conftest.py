"""Real servers, started once for all integration tests."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import settings

from broker.cli.client import handover
from broker.identity import secret
from broker.model.sensitive import Sensitive
from tests.support.broker import BrokerProcess, Tenant
from tests.support.federated import Federated
from tests.support.installed import install
from tests.support.issuer import SIGNED
from tests.support.lab import Lab
from tests.support.outputs import leaks

LAST = "test_leaks.py"

settings.register_profile("busy", deadline=None)  # how long an example takes tells of the machine, not of the broker
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Search for leaks when all other tests have had the chance to make one."""
    items.sort(key=lambda item: item.path.name == LAST)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured about revocation."""
    passed = terminalreporter.getreports("passed")
    told = [value for report in passed for name, value in report.user_properties if name == "refused"]
    if told:
        terminalreporter.section("seconds from revocation to refusal")
        for line in told:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def client_secrets() -> Iterator[list[str]]:
    """Note each client's secret that a test or the command line makes: servers see to it for all other values."""
    made: list[str] = []
    generate = secret.generate

    def noted() -> Sensitive:
        made.append((value := generate()).reveal())
        return value

    with pytest.MonkeyPatch.context() as patch:
        for module in (secret, handover):
            patch.setattr(module, "generate", noted)
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab(client_secrets: list[str]) -> AsyncIterator[Lab]:
    """Start a cluster and a Vault for the whole session; tests make their own namespaces in it.

    All brokers have ended when it ends, so it sees whether the last word of one was a secret.
    """
    async with Lab.start(witnessed=True) as running:
        yield running
        assert await leaks(running, [*client_secrets, *SIGNED]) == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(lab: Lab) -> Lab:
    """Apply deploy/base to the cluster, with the audiences of the tests."""
    await install(lab.cluster)
    return lab


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def federated(installed: Lab) -> AsyncIterator[Federated]:
    """Run one broker, which believes an OIDC issuer, for all tests that do not harm it.

    It is the only one of the session: two would write each other's statuses and replace each other's copies.
    """
    async with Federated.start(installed) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(federated: Federated) -> BrokerProcess:
    """Return the session's broker."""
    return federated.broker


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(installed: Lab, request: pytest.FixtureRequest) -> Tenant:
    """Make a namespace of the test's own, named after it."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))
    return await Tenant.create(installed.cluster, f"{name[:50].strip('-')}-{digest}")
