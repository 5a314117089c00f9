"""A cluster and a Vault that may be harmed, and the report of what that did."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.chaos.scene import Scene
from tests.support.installed import install
from tests.support.lab import Lab

REPORT = "chaos"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each fault did."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    told = [value for report in reports for name, value in report.user_properties if name == REPORT]
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
    """Starts scenes, and has told what became of them."""

    lab: Lab
    record: Callable[[str, object], None]

    def scene(self, name: str, fault: str, **options: Any) -> AbstractAsyncContextManager[Scene]:
        """Start a scene as :meth:`Scene.start` does."""
        return self._scene(name, fault, **options)

    @asynccontextmanager
    async def _scene(self, name: str, fault: str, **options: Any) -> AsyncIterator[Scene]:
        async with Scene.start(self.lab, name, fault=fault, **options) as scene:
            try:
                yield scene
            finally:
                self.record(REPORT, "\n".join(scene.outcome.lines()))


@pytest.fixture
def stage(harmed: Lab, record_property: Callable[[str, object], None]) -> Stage:
    """Return where scenes are played."""
    return Stage(harmed, record_property)
