"""The directory itself: what is in it, and the bytes of its files. Everything here blocks: call it in a thread."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".yaml", ".yml")
MAX_FILES = 2000
MAX_FILE_BYTES = 1024 * 1024
"""As much as a ConfigMap can hold."""

MAX_TOTAL_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as it looks from outside. Another content never looks the same: the kernel sets ``changed``."""

    name: str
    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @property
    def shown(self) -> str:
        """The name as it can be written down: bytes that are not UTF-8 stand there escaped."""
        return os.fsencode(self.name).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a file has no content, in words that quote nothing of it."""

    problem: str


def look(folder: Path) -> tuple[Entry, ...]:
    """Return what is there, sorted by name. Links are followed: a mounted ConfigMap consists of them.

    Raises OSError where the directory cannot be read, or holds more than is read.
    """
    with os.scandir(folder) as listed:
        names = sorted(one.name for one in listed if one.name.endswith(SUFFIXES) and not one.name.startswith("."))
    if len(names) > MAX_FILES:
        raise OSError(f"{len(names)} files are more than the {MAX_FILES} that are read")
    entries = tuple(_entry(folder, name) for name in names)
    total = sum(entry.size for entry in entries)
    if total > MAX_TOTAL_BYTES:
        raise OSError(f"{total} bytes are more than the {MAX_TOTAL_BYTES} that are read")
    return entries


def read(folder: Path, entry: Entry) -> bytes | Unreadable:
    """Return a file's content, or why there is none."""
    try:
        # Opening a pipe would wait for its writer.
        file = os.open(folder / entry.name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Unreadable(f"cannot be read: {error.strerror}")
    try:
        return _content(file)
    except OSError as error:
        return Unreadable(f"cannot be read: {error.strerror}")
    finally:
        os.close(file)


def _content(file: int) -> bytes | Unreadable:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return Unreadable("is not a file")
    with os.fdopen(file, "rb", closefd=False) as opened:
        content = opened.read(MAX_FILE_BYTES + 1)
    return content if len(content) <= MAX_FILE_BYTES else Unreadable(f"is larger than {MAX_FILE_BYTES} bytes")


def _entry(folder: Path, name: str) -> Entry:
    try:
        found = (folder / name).stat()
    except OSError:
        return Entry(name, 0, 0, 0, 0, 0)  # a link to nothing; reading it says why
    return Entry(name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
