"""What fires on a real Prometheus when something breaks, and what each alert says."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tests.monitoring.rules import ALERTS, RUNBOOKS
from tests.support.processes import ProgramError, until
from tests.support.watching import Labels, Watching

TROUBLED_SECONDS = 120.0
"""How long something stays broken before a test says that an alert did not fire."""

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


def assert_told(fired: Fired, alert: str, labels: Labels, summary: str) -> None:
    """Assert that one such alert fired, and what it says."""
    told = found(fired, alert, labels)
    assert len(told) == 1, f"{alert} {labels} did not fire, but: {[one['labels'] for one in fired]}"
    assert summary in told[0]["annotations"]["summary"]
    assert told[0]["annotations"]["runbook_url"] == f"{RUNBOOKS}{alert}"
    assert told[0]["labels"]["severity"] == ALERTS[alert]["labels"]["severity"]
