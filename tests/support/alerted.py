"""What fires on a real Prometheus when something breaks, and what each alert says."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tests.monitoring.rules import ALERTS, RUNBOOKS
from tests.support.broker import Tenant
from tests.support.cluster import Cluster
from tests.support.processes import ProgramError, until
from tests.support.watching import Labels, Watching

TROUBLED_SECONDS = 120.0
"""How long something stays broken before a test says that an alert did not fire."""
_GONE_SECONDS = 90.0

Fired = list[dict[str, Labels]]
"""Alerts as Prometheus tells them: ``labels`` and ``annotations`` of each."""
Expected = dict[str, tuple[Labels, str]]
"""For an alert's name: labels that it has, and words of its summary."""


def with_threshold(rules: dict[str, Any], alert: str, given: str, by: str) -> None:
    """Replace the one threshold of a rule, such as ``> 600``, that no test can wait for. Raises ValueError."""
    rule = next(rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] == alert)
    if rule["expr"].count(given) != 1:
        raise ValueError(f"{alert} does not have {given} once: {rule['expr']}")
    rule["expr"] = rule["expr"].replace(given, by)


def found(fired: Fired, name: str, labels: Labels) -> Fired:
    """Return the alerts of that name with those labels."""
    wanted = {"alertname": name, **labels}
    return [alert for alert in fired if wanted.items() <= alert["labels"].items()]


async def until_fired(watching: Watching, expected: Expected, ask: Callable[[], Awaitable[object]]) -> Fired:
    """Return what fires once all of the expected alerts do, or after two minutes; callers go on asking meanwhile."""
    fired: Fired = []

    async def all_fired() -> bool:
        nonlocal fired
        await ask()
        fired = await watching.firing()
        return all(found(fired, name, labels) for name, (labels, _) in expected.items())

    with suppress(ProgramError):  # each test says which one did not
        await until(all_fired, what="all alerts fire", seconds=TROUBLED_SECONDS)
    return fired


async def is_copied(tenant: Tenant, client: str) -> bool:
    """Tell whether a TokenClient says that its token is in Vault."""
    return (await tenant.condition(client, "VaultSynced")).get("status") == "True"


async def remove(cluster: Cluster, *namespaces: str) -> None:
    """Delete namespaces, once brokers have let their clients go: else the next brokers would tell of these."""
    paths = [f"/apis/tokenbroker.dev/v1alpha1/namespaces/{name}/tokenclients" for name in namespaces]

    async def gone() -> bool:
        return not any([(await cluster.request("GET", path))[1].get("items", ()) for path in paths])

    for path in paths:
        await cluster.request("DELETE", path)
    await until(gone, what=f"the clients of {namespaces} are gone", seconds=_GONE_SECONDS)
    for name in namespaces:
        await cluster.request("DELETE", f"/api/v1/namespaces/{name}")


def assert_told(fired: Fired, alert: str, labels: Labels, summary: str) -> None:
    """Assert that one such alert fired, and what it says."""
    told = found(fired, alert, labels)
    assert len(told) == 1, f"{alert} {labels} did not fire, but: {[one['labels'] for one in fired]}"
    assert summary in told[0]["annotations"]["summary"]
    assert told[0]["annotations"]["runbook_url"] == f"{RUNBOOKS}{alert}"
    assert told[0]["labels"]["severity"] == ALERTS[alert]["labels"]["severity"]
