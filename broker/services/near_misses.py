"""Tell the owner of a client that somebody came close: a genuine token that the TokenClient does not accept."""

from broker.errors import ProofFailure
from broker.model.client import ClientId
from broker.ports import EventRecorder, Registry
from broker.services.event_notes import EVENT_NOTES
from broker.services.workqueue import WorkQueue

QUIET_SECONDS = 300.0
"""After an Event, the next one of the same kind for the client waits this long."""

EVENT_REASONS = {
    ProofFailure.CLAIMS_MISMATCH: "ProofMismatch",
    ProofFailure.ACCOUNT_REPLACED: "ProofAccountReplaced",
}


Miss = tuple[ClientId, ProofFailure]


class NearMisses:
    """Records an Event with a fixed text for a near miss, at most one of a kind a client at a time."""

    def __init__(self, registry: Registry, events: EventRecorder) -> None:
        self._registry = registry
        self._events = events
        self._told: dict[Miss, bool] = {}
        self.queue: WorkQueue[Miss] = WorkQueue("near-misses", self._visit, workers=2)

    def __call__(self, client_id: ClientId, failure: ProofFailure) -> None:
        """Note a near miss, unless one of its kind was told of lately, or is about to be."""
        miss = (client_id, failure)
        if miss not in self._told:
            self._told[miss] = False
            self.queue.add(miss)

    async def _visit(self, miss: Miss) -> float | None:
        """Tell of a miss at the first visit, and be quiet until the second."""
        if self._told[miss]:
            del self._told[miss]
            return None
        registration = self._registry.get(miss[0])
        self._told[miss] = True
        if registration is not None:
            reason = EVENT_REASONS[miss[1]]
            await self._events.record(registration, reason, EVENT_NOTES[reason], warning=True)
        return QUIET_SECONDS
