"""A KV engine of version 2 in memory, as small as the port that it stands behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.errors import BrokerError
from broker.model.sensitive import Sensitive
from broker.model.stored_copy import CopyLabel, StoredCopy
from broker.vault.answer import conflict

Data = Mapping[str, Sensitive | str]


@dataclass
class Entry:
    """One path: its versions (None where deleted) and its label; ``stranger`` where the label is not ours."""

    versions: list[Data | None] = field(default_factory=list)
    label: CopyLabel | None = None
    stranger: bool = False


class FakeVault:
    """Implements :class:`broker.ports.VaultStore`.

    ``before`` and ``after`` are called around each call with its name, and may raise.
    """

    def __init__(self, before: Callable[[str], None] | None = None, after: Callable[[str], None] | None = None) -> None:
        self.entries: dict[tuple[str, ...], Entry] = {}
        self.fault: BrokerError | None = None
        self.standby: BrokerError | None = None
        """What is raised by what takes writes, where only a standby is left; reads are answered."""
        self._before = before or (lambda _: None)
        self._after = after or (lambda _: None)

    async def inspect(self, path: tuple[str, ...]) -> StoredCopy | None:
        """Return what the metadata says."""
        self._enter("inspect")
        entry = self.entries.get(path)
        self._after("inspect")
        if entry is None:
            return None
        intact = bool(entry.versions) and entry.versions[-1] is not None
        label = None if entry.stranger else entry.label
        return StoredCopy(len(entry.versions), label is not None, label, intact)

    async def write(self, path: tuple[str, ...], data: Data, cas: int) -> int:
        """Write a version on top of version ``cas``."""
        self._enter("write")
        entry = self.entries.get(path, Entry())
        if len(entry.versions) != cas:
            raise conflict("/".join(path))
        self.entries[path] = entry
        entry.versions.append(data)
        self._after("write")
        return len(entry.versions)

    async def label(self, path: tuple[str, ...], label: CopyLabel) -> None:
        """Replace the label."""
        self._enter("label")
        entry = self.entries.setdefault(path, Entry())
        entry.label, entry.stranger = label, False
        self._after("label")

    async def remove(self, path: tuple[str, ...]) -> None:
        """Forget a path."""
        self._enter("remove")
        self.entries.pop(path, None)
        self._after("remove")

    async def children(self, path: tuple[str, ...]) -> list[str]:
        """Return the names below a path."""
        self._enter("children")
        depth = len(path)
        below = [entry for entry in self.entries if entry[:depth] == path and len(entry) > depth]
        names = {entry[depth] + ("/" if len(entry) > depth + 1 else "") for entry in below}
        self._after("children")
        return sorted(names)

    async def reach_active(self) -> None:
        """Answer, unless it is only a standby."""
        self._enter("reach_active")
        if self.standby is not None:
            raise self.standby
        self._after("reach_active")

    def stranger_writes(self, path: tuple[str, ...]) -> None:
        """Let somebody else make or overwrite a path's data; a label of ours stays."""
        entry = self.entries.setdefault(path, Entry(stranger=True))
        entry.versions.append({"k": "v"})

    def delete_current(self, path: tuple[str, ...]) -> None:
        """Soft-delete or destroy the current version."""
        self.entries[path].versions[-1] = None

    def _enter(self, call: str) -> None:
        self._before(call)
        if self.fault is not None:
            raise self.fault
