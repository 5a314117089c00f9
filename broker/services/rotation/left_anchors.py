"""Anchors that failed deliveries may have left behind.

The anchor of a version is found by the next attempt at that version. But a leader renews a copy without looking for
one: it knows nothing of an attempt at another replica. So the replica where a delivery failed comes back to what it may
have made. As long as that version may still be written, the anchor is left alone.
"""

from dataclasses import dataclass, replace

from broker.model.token import Anchor
from broker.model.vault_path import CopyKey, VaultPlace
from broker.ports import Anchors, VaultStore
from broker.services.rotation.copy import Target, anchor_of
from broker.services.rotation.outage import Reach
from broker.services.rotation.wanted import Wanted
from broker.services.workqueue import WorkQueue

LOOK_SECONDS = 600.0
"""How often it is looked whether a later version is there: this ends an empty Secret, and a token that nobody has."""


@dataclass(frozen=True, slots=True)
class LeftAnchor:
    """The anchor of a version, below that of ``root_uid``. ``was_passed``: a later version was there already."""

    copy: CopyKey
    name: str
    root_uid: str
    version: int
    was_passed: bool = False


class LeftAnchors:
    """Deletes them when no version can be bound to them any more, and no reader holds one that was.

    What a process that has ended has left behind goes with the anchor above all versions.
    """

    def __init__(self, *, wanted: Wanted, reach: Reach, store: VaultStore, anchors: Anchors, place: VaultPlace) -> None:
        self._wanted = wanted
        self._reach = reach
        self._store = store
        self._anchors = anchors
        self._place = place
        self.queue: WorkQueue[LeftAnchor] = WorkQueue("left-anchors", self.visit, workers=1)

    def failed(self, target: Target, root: Anchor, version: int) -> None:
        """Take note that a version was to be written, and that it is not known how far that went."""
        self.queue.add(LeftAnchor(target.key, anchor_of(target, root, version).name, root.uid, version), LOOK_SECONDS)

    async def visit(self, left: LeftAnchor) -> float | None:
        """Delete one, or find that it is in use or gone; the queue's handler."""
        if self._wanted.nowhere(left.copy):
            return None  # the anchor above it goes with the copy
        target = self._wanted.target(left.copy)
        if self._reach.away is not None:
            return LOOK_SECONDS
        copy = await self._store.inspect(self._place.path(left.copy))
        label = copy.label if copy is not None else None
        if target is None or label is None or label.version < left.version:
            return LOOK_SECONDS
        if label.root_uid != left.root_uid or left.name in {anchor.name for anchor in label.anchors}:
            return None  # it went with the one above, or the label tells when it ends
        if left.was_passed:
            await self._anchors.delete(left.copy.client.namespace, left.name)
        else:
            self.queue.add(replace(left, was_passed=True), target.readers_late.total_seconds())
        return None
