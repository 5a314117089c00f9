"""Statuses at the real API server: none goes over what was not seen, and that costs few calls."""

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from broker.kube.session import KubeSession
from broker.kube.status import KubeStatusWriter
from broker.registration.manifest import read_registration
from tests.support.asked import Heard
from tests.support.broker import BrokerProcess, Tenant
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import until

CLIENTS, CHANGES = 30, 4
PATCHED = re.compile(
    r'^apiserver_request_total\{code="(\d+)",.*resource="tokenclients",.*subresource="status",.*'
    r'verb="PATCH",.*\} ([0-9.e+]+)$',
    re.MULTILINE,
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def quiet() -> AsyncIterator[Lab]:
    """Start a cluster in which no broker runs but those that a test starts: what is counted is of one leader."""
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        yield lab


@pytest_asyncio.fixture(loop_scope="session")
async def broker(quiet: Lab) -> AsyncIterator[BrokerProcess]:
    """Run a broker."""
    async with BrokerProcess.start(quiet, f"statuses-{secrets.token_hex(4)}") as broker:
        yield broker


async def test_a_broker_overtakes_no_status_of_its_own(quiet: Lab, broker: BrokerProcess) -> None:
    """It knows what it has written before the watch brings it: where nobody else writes, no call is in vain.

    But for those that it makes while a watch begins anew, by a list from a moment before.
    """
    tenant = await _tenant(quiet)
    before = await _written(quiet)
    await _register(tenant)
    await _until_ready(tenant, broker)
    made = await _written(quiet) - before

    assert set(made) <= {"200", "409"}
    assert made["409"] <= CLIENTS / 10
    assert 2 * CLIENTS <= made["200"] <= 3 * CLIENTS  # their grants, what came of them, and a condition meanwhile


async def test_first_statuses_while_clients_are_changed_cost_no_call_more_than_changes(
    quiet: Lab, broker: BrokerProcess
) -> None:
    """Whoever registers many clients, and labels each again and again; and nothing of it is a failure."""
    tenant = await _tenant(quiet)
    before = await _written(quiet)
    names = await _register(tenant)
    for change in range(CHANGES):
        await asyncio.gather(*(_label(tenant, name, str(change)) for name in names))
    await _until_ready(tenant, broker)
    made = await _written(quiet) - before

    assert set(made) <= {"200", "409"}
    assert made["409"] <= CLIENTS * CHANGES
    assert 2 * CLIENTS <= made["200"] <= 3 * CLIENTS
    assert not _failed(broker)


async def test_whoever_changes_a_client_without_pause_does_not_hold_its_status_up(
    quiet: Lab, broker: BrokerProcess
) -> None:
    """It is written between two changes."""
    tenant = await _tenant(quiet)
    await tenant.client("web", {"serviceAccount": {"name": "reader"}})
    changes = Counter[str]()

    async def churn() -> None:
        while True:
            await _label(tenant, "web", str(changes.total()))
            changes["made"] += 1

    before = await _written(quiet)
    churning = asyncio.create_task(churn())
    try:
        await tenant.until_reason("web", "Ready")
        await tenant.patch("web", {"suspend": True})
        await tenant.until_reason("web", "Suspended")
    finally:
        churning.cancel()
    made = await _written(quiet) - before

    assert made["409"] <= changes.total() + 1
    assert not _failed(broker)


async def test_a_late_status_of_an_earlier_leader_goes_over_no_word_of_the_next(quiet: Lab, tmp_path: Path) -> None:
    """It names the version on which it was decided, and the UID: a namesake is another one."""
    tenant, cluster, token = await _tenant(quiet), quiet.cluster, tmp_path / "token"
    token.write_text(cluster.admin_token)
    await tenant.client("web", {"serviceAccount": {"name": "reader"}})
    _, resource = await cluster.request("GET", f"{tenant.path}/web")
    seen = read_registration(resource)
    async with KubeSession(cluster.server, cluster.ca_file, token, 10) as session:
        writer = KubeStatusWriter(session, Heard().written)
        of_the_next = await writer.write(seen, {"observedGeneration": 1})
        late = await writer.write(seen, {"observedGeneration": 7})
        _, there = await cluster.request("GET", f"{tenant.path}/web")
        await cluster.request("DELETE", f"{tenant.path}/web")
        gone = await writer.write(seen, {"observedGeneration": 8})
        await tenant.client("web", {"serviceAccount": {"name": "reader"}})
        of_another = await writer.write(seen, {"observedGeneration": 9})
        _, namesake = await cluster.request("GET", f"{tenant.path}/web")

    assert (of_the_next, late, gone, of_another) == (True, False, False, False)
    assert there["status"] == {"observedGeneration": 1}
    assert "status" not in namesake


async def _tenant(lab: Lab) -> Tenant:
    tenant = await Tenant.create(lab.cluster, f"statuses-{secrets.token_hex(4)}")
    await tenant.account("reader")
    return tenant


async def _register(tenant: Tenant) -> list[str]:
    names = [f"web-{number}" for number in range(CLIENTS)]
    for name in names:
        await tenant.client(name, {"serviceAccount": {"name": "reader"}})
    return names


async def _until_ready(tenant: Tenant, broker: BrokerProcess) -> None:
    async def ready() -> bool:
        _, listed = await tenant.cluster.request("GET", tenant.path)
        return all(_reason(one) == "Ready" for one in listed["items"])

    await until(ready, what="all are ready", programs=(broker.program,))


def _failed(broker: BrokerProcess) -> list[str]:
    """Return what the broker says of statuses that it failed to write."""
    lines = broker.program.log.read_text().splitlines()
    return [line for line in lines if "work.failed" in line and '"queue":"status"' in line]


async def _label(tenant: Tenant, name: str, value: str) -> None:
    """Change something of a client that is none of the broker's business."""
    changed = {"metadata": {"labels": {"changed": value}}}
    await tenant.cluster.request("PATCH", f"{tenant.path}/{name}", changed)


async def _written(lab: Lab) -> Counter[str]:
    """Return how many statuses the API server was asked to write so far, by what it answered."""
    _, page = await lab.cluster.request("GET", "/metrics")
    made = Counter[str]()
    for code, count in PATCHED.findall(page["text"]):
        made[code] += int(float(count))
    return made


def _reason(resource: dict[str, Any]) -> str:
    found = [one["reason"] for one in resource.get("status", {}).get("conditions", ()) if one["type"] == "Ready"]
    return str(found[0]) if found else ""
