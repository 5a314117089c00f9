"""Until when the anchors of versions that were replaced are kept, whatever later labels say of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from broker.model.stored_copy import CopyLabel
from broker.model.vault_path import CopyKey
from tests.model.kubernetes import Kubernetes


@dataclass(frozen=True, slots=True)
class Owed:
    """An anchor that is to be deleted at ``until``, of the copy of that client."""

    uid: str
    copy: CopyKey
    client_uid: str
    account: str
    until: float


@dataclass(slots=True)
class OwedEnds:
    """Remembers, by the anchor's UID, what labels have promised."""

    _owed: dict[str, Owed] = field(default_factory=dict)

    def note(self, label: CopyLabel, kube: Kubernetes) -> None:
        """Take note of a label: a version that readers get is kept, also where it was to end before."""
        self._owed.pop(label.anchor.uid, None)
        for one in label.retired:
            until = kube.monotonic() + (one.until - kube.now()).total_seconds()
            copy, account = CopyKey(label.client, label.grant), label.service_account
            self._owed[one.anchor.uid] = Owed(one.anchor.uid, copy, label.client_uid, account, until)

    def over(self, kube: Kubernetes, seconds: float) -> Iterator[Owed]:
        """Return what is still there so long after it was to be deleted."""
        there = {secret.uid for secret in kube.secrets.values()}
        for one in self._owed.values():
            if one.uid in there and one.until < kube.monotonic() - seconds:
                yield one
