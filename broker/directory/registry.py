"""The registered clients: a memory fed by looking at a directory, and nothing else."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from broker.directory.files import Entry, look, read
from broker.directory.resources import File, merged, read_file
from broker.ports import Registration
from broker.registration.memory import Memory, SizeMetrics

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
"""How often the directory is looked at. A change counts once two looks in a row saw the same, so that a file that is
being written is not read by halves."""

STALE_SECONDS = 90.0
"""As long as the watch on TokenClients may be silent."""


class DirectoryMetrics(SizeMetrics, Protocol):
    """What the registry tells about itself."""

    def registry_files(self, broken: int) -> None:
        """Set how many files serve nobody because they cannot be read."""


class DirectoryRegistry(Memory):
    """All TokenClients of a directory; implements :class:`broker.ports.LiveRegistry`.

    Where the directory cannot be read, what was read last counts for 90 s.
    """

    def __init__(self, folder: Path, cluster: str, metrics: DirectoryMetrics) -> None:
        super().__init__(metrics, source=f"the directory {folder}", stale_seconds=STALE_SECONDS)
        self._folder = folder
        self._cluster = cluster
        self._metrics = metrics
        self._seen: tuple[Entry, ...] | None = None
        self._taken: tuple[Entry, ...] | None = None
        self._files: dict[str, File] = {}
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """See :attr:`broker.ports.LiveRegistry.trouble`."""
        return self._trouble

    async def run(self) -> None:
        """Look at the directory again and again, until cancelled."""
        while True:
            try:
                await self._look()
            except OSError as error:
                self._troubled(error.strerror or str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self) -> None:
        seen = await asyncio.to_thread(look, self._folder)
        steady, self._seen = seen == self._seen, seen
        if seen != self._taken:
            if not steady:
                return
            files = await asyncio.to_thread(self._read, seen)
            self._seen = await asyncio.to_thread(look, self._folder)
            if self._seen != seen:
                return
            self._take(files)
            self._taken = seen
        self.heard()
        self._trouble = ""
        self.synced.set()

    def _read(self, entries: tuple[Entry, ...]) -> dict[str, File]:
        same = frozenset(self._taken or ())
        return {entry.name: self._files[entry.name] if entry in same else self._read_one(entry) for entry in entries}

    def _read_one(self, entry: Entry) -> File:
        return read_file(entry.shown, read(self._folder, entry), self._cluster, self._files.get(entry.name))

    def _take(self, files: dict[str, File]) -> None:
        for name, file in files.items():
            if file.problem and file != self._files.get(name):
                log.warning("registry.file_broken", file=file.name, detail=file.problem)
        self._files = files
        self._metrics.registry_files(sum(bool(file.problem) for file in files.values()))
        self.replace_all(map(self._with_status, merged(files.values(), self._cluster)))

    def _with_status(self, registration: Registration) -> Registration:
        known = self.seen(registration.id)
        return registration if known is None else replace(registration, status=known.status)

    def _troubled(self, detail: str) -> None:
        if detail != self._trouble:
            self._trouble = detail
            log.warning("registry.directory_unreadable", directory=str(self._folder), detail=detail)
