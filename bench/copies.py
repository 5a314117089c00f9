"""Which copies have a new version: by Vault's word, by the broker's metrics, and ahead of both by its audit log."""

import asyncio
import re
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

from bench.errors import BenchError
from bench.hands import each

METADATA, GRANT = "secret/metadata/tokenbroker/lab", "default"
AGAIN_SECONDS = 0.5
WRITTEN = re.compile(r'^tokenbroker_vault_writes_total\{.*outcome="success".*\} ', re.MULTILINE)
RECORD = b'"delivery":"vault"'


class Vault(Protocol):
    """What is asked (:class:`tests.support.openbao.OpenBao`)."""

    async def api(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an answer."""


class Recorded:
    """Counts the clients of whose copies an audit log tells that a new version was about to be written.

    A record is there before the token is in Vault, and also where it never gets there. So this tells when Vault is
    worth asking, at no cost to what is measured, and nothing more. What was read once is not read again.
    """

    def __init__(self, file: Path) -> None:
        """Begin with what is written from now on."""
        self._file = file
        self._read = 0
        self._clients: set[str] = set()
        self._lines()

    def count(self) -> int:
        """Return how many clients there are."""
        self._clients.update(orjson.loads(line)["client"] for line in self._lines() if RECORD in line)
        return len(self._clients)

    def _lines(self) -> list[bytes]:
        """Return the whole lines that came since it was asked last."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._read)
            lines, end, _ = file.read().rpartition(b"\n")
        self._read += len(lines) + len(end)
        return lines.splitlines()


def written(page: str) -> int:
    """Return how many copies were written at least once, by a page of the broker's metrics."""
    return len(WRITTEN.findall(page))


async def last_written(vault: Vault, clients: Iterable[str], since: datetime, seconds: float) -> datetime:
    """Wait until each client's copy has a version of after ``since``, and return when the last one got its first.

    The times are Vault's own. Raises BenchError where it answers otherwise than with a copy, and where some have no new
    version after so many ``seconds``.
    """
    missing, last = set(clients), since
    deadline = time.monotonic() + seconds
    while True:
        found = await _first_versions(vault, missing, since)
        missing -= found.keys()
        last = max([last, *found.values()])
        if not missing:
            return last
        if time.monotonic() > deadline:
            raise BenchError(f"{len(missing)} copies have no new version in Vault, such as that of {min(missing)}")
        await asyncio.sleep(AGAIN_SECONDS)


async def _first_versions(vault: Vault, clients: Collection[str], since: datetime) -> dict[str, datetime]:
    """Return when each client's copy had its first version after ``since``, without those that had none."""
    found: dict[str, datetime] = {}

    async def look(client: str) -> None:
        status, body = await vault.api("GET", f"{METADATA}/{client}/{GRANT}")
        if status != 200:
            raise BenchError(f"Vault answered {status} about the copy of {client}: {body}")
        first = first_version(body["data"]["versions"], since)
        if first is not None:
            found[client] = first

    await each(clients, look)
    return found


def first_version(versions: Mapping[str, Mapping[str, Any]], since: datetime) -> datetime | None:
    """Return when the first version after ``since`` was written, or None. ``versions`` are as KV version 2 has them."""
    times = [datetime.fromisoformat(str(one["created_time"])) for one in versions.values()]
    return min((time for time in times if time > since), default=None)
