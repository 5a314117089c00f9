"""Whatever comes together, in virtual time: what was promised holds, and in the end everything is as it should be.

``MODEL_HISTORIES=5000 pytest tests/model`` looks at so many others, which nobody has seen before.
"""

import logging
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.crossings import Crossings
from tests.model.world import World

HISTORIES = int(os.environ.get("MODEL_HISTORIES", "0"))
"""How many; 0 for some that are always the same."""

SETTINGS = settings(
    max_examples=HISTORIES or 120,
    stateful_step_count=25,
    derandomize=not HISTORIES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(3600)
def test_no_history_breaks_a_promise() -> None:
    """Registry, rotation and revocation against the model; and in these histories something happens."""
    seen = Counter[str]()

    class Counted(Crossings):
        """Counts what happened."""

        def tell(self, world: World) -> None:
            seen.update(histories=1, handed_out=len(world.held), faults=world.faults.hits.total(), owed=len(world.owed))
            seen.update(in_vault=len(world.reads), clients=len(world.kube.resources), ended=len(world.audit.revoked))

    run_state_machine_as_test(Counted, settings=SETTINGS)

    logging.getLogger(__name__).info("what happened: %s", dict(seen))
    few = {what: number for what, number in seen.items() if number < seen["histories"] / 8}
    assert not few, f"in {seen['histories']} histories hardly anything happened: {few}"
