"""A cluster and a Vault that may be harmed, and the report of what that did."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.chaos.report import Outcome
from tests.support.chaos.scene import Scene
from tests.support.installed import install
from tests.support.lab import Lab

REPORT = "chaos"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each fault did."""
    reports = [one for some in terminalreporter.stats.values() for one in some]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    told = [value for report in ended for name, value in report.user_properties if name == REPORT]
    if told:
        terminalreporter.section("faults, what was seen during them, and seconds until all was well again")
        for lines in told:
            terminalreporter.write_line(lines)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def harmed() -> AsyncIterator[Lab]:
    """Start a cluster and a Vault of these tests' own."""
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        yield lab


@dataclass(frozen=True, slots=True)
class Stage:
    """Starts scenes that are one test's own, and tells what became of them."""

    lab: Lab
    record: Callable[[str, object], None]

    @asynccontextmanager
    async def scene(self, name: str, **options: Any) -> AsyncIterator[Scene]:
        """Start a scene as :meth:`Scene.start` does."""
        async with Scene.start(self.lab, name, **options) as scene:
            try:
                yield scene
            finally:
                _tell(self.record, scene.outcomes)


@pytest.fixture
def stage(harmed: Lab, record_property: Callable[[str, object], None]) -> Stage:
    """Return where scenes are played."""
    return Stage(harmed, record_property)


@pytest.fixture
def scene(standing: Scene, record_property: Callable[[str, object], None]) -> Iterator[Scene]:
    """Return the module's scene, which several faults happen to, one after the other."""
    before = len(standing.outcomes)
    yield standing
    _tell(record_property, standing.outcomes[before:])
    assert standing.ledger.taken_violations() == []  # what came late, or while a test failed


def _tell(record: Callable[[str, object], None], outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        record(REPORT, "\n".join(outcome.lines()))
