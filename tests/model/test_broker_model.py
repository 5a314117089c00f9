"""Whatever comes together, in virtual time: what was promised holds, and in the end everything is as it should be."""

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import BrokerMachine

HISTORIES = int(os.environ.get("MODEL_HISTORIES", "0"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log nothing: brokers in trouble have much to say."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.timeout(3000)
def test_no_history_breaks_a_promise() -> None:
    """Registry, rotation and revocation against the model, with faults at every port call."""
    run_state_machine_as_test(
        BrokerMachine,
        settings=settings(
            max_examples=HISTORIES or 200,
            stateful_step_count=25,
            derandomize=not HISTORIES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink) if not os.environ.get("MODEL_RAW") else (Phase.generate,),
        ),
    )
