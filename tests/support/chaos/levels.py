"""What a process holds: memory, file descriptors and tasks, seen from outside."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.broker import BrokerProcess

_TASKS = re.compile(r"^tokenbroker_tasks (\S+)$", re.MULTILINE)
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
MORE_MB, MORE_DESCRIPTORS, MORE_TASKS = 24, 16, 16
"""By how much a level may be above what it was and still be called the same: pools breathe."""


@dataclass(frozen=True, slots=True)
class Level:
    """Resident memory in megabytes (10^6 bytes), open file descriptors, and tasks of the event loop."""

    megabytes: float
    descriptors: int
    tasks: int

    @classmethod
    async def of(cls, broker: BrokerProcess) -> "Level":
        """Return a running broker's."""
        process = Path("/proc") / str(broker.program.pid)
        resident = _RESIDENT.search((process / "status").read_text())
        tasks = _TASKS.search(await broker.metrics())
        if resident is None or tasks is None:
            raise RuntimeError("the broker's memory or tasks cannot be read")
        descriptors = len([*(process / "fd").iterdir()])
        return cls(int(resident[1]) * 1024 / 1e6, descriptors, int(float(tasks[1])))

    def back_at(self, before: "Level") -> bool:
        """Tell whether nothing grew by more than what pools and caches are allowed."""
        return (
            self.megabytes <= before.megabytes + MORE_MB
            and self.descriptors <= before.descriptors + MORE_DESCRIPTORS
            and self.tasks <= before.tasks + MORE_TASKS
        )

    def __str__(self) -> str:
        return f"{self.megabytes:.0f} MB, {self.descriptors} descriptors, {self.tasks} tasks"
