"""Whatever the broker does by itself says how late it is."""

import re

from tests.support.broker import BrokerProcess

LATE = re.compile(r'^tokenbroker_queue_overdue_seconds\{queue="([^"]+)"\} ', re.MULTILINE)
ALL = {"reconcile", "status", "rotate", "sweep", "left-anchors", "abandoned-tokens", "near-misses", "lead-events"}


async def test_each_queue_tells_how_late_it_is(broker: BrokerProcess) -> None:
    """One that is left out can hang with no alert."""
    assert sorted(LATE.findall(await broker.metrics())) == sorted(ALL)
