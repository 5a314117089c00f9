"""A gate for callers, and what it tells."""

from broker.ports import Clock
from broker.services.storms.gate import Bounds, Gate, Shed

WIDE = Bounds(concurrency=16, waiting=64, waiting_each=64, wait_seconds=5)


class GateNotes:
    """Notes what a gate tells; implements :class:`broker.services.storms.gate.GateMetrics`."""

    def __init__(self) -> None:
        self.refused: list[Shed] = []
        self.waits: list[float] = []

    def shed(self, why: Shed) -> None:
        """Note a request that was refused early."""
        self.refused.append(why)

    def waited(self, seconds: float) -> None:
        """Note how long one waited."""
        self.waits.append(seconds)


def a_gate(clock: Clock, bounds: Bounds = WIDE, notes: GateNotes | None = None) -> Gate:
    """Return a gate that hardly anybody has to wait at."""
    return Gate(bounds, clock, notes or GateNotes())
