"""Tell people who leads."""

from broker.ports import LeadRecorder
from broker.services.workqueue import WorkQueue


class LeadNews:
    """Records the last change of either kind, beside what leading is about: nothing waits for it."""

    def __init__(self, recorder: LeadRecorder) -> None:
        self._recorder = recorder
        self.queue: WorkQueue[bool] = WorkQueue("lead-events", self._record, workers=1)

    def changed(self, *, leading: bool) -> None:
        """Take note that this process leads, or leads no more; what was not told yet of before is told no more."""
        self.queue.forget(not leading)
        self.queue.add(leading)

    async def _record(self, leading: bool) -> None:  # noqa: FBT001 - the queue's key
        await self._recorder.record(leading=leading)
