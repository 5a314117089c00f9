"""The load generator: vegeta (https://github.com/tsenart/vegeta), built once from the Go module proxy."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from bench.errors import BenchError
from tests.support.go import installed

VERSION = "v12.13.0"
MODULE = "github.com/tsenart/vegeta/v12"
_SPARE_SECONDS = 60.0
_OUT_OF_TARGETS = "no targets to attack"
"""What each worker writes down when a volley is over; it is no answer."""

_LINE_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """One request, sent again and again. ``authority`` is the file of the CA for https."""

    name: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer. Times are in seconds; ``at`` is when it was asked for, since the epoch."""

    at: float
    latency: float
    status: int
    error: str
    body: bytes


def vegeta() -> Path:
    """Return the path of the program, building it when the cache has none. Raises BuildError."""
    return installed(MODULE, VERSION)


class Generator:
    """Attacks targets; its programs end with the process group ``group``."""

    def __init__(self, program: Path, folder: Path, group: int) -> None:
        self._program = program
        self._folder = folder
        self._group = group

    async def attack(self, target: Target, connections: int, seconds: float, rate: int = 0) -> Path:
        """Ask as fast as ``connections`` connections can for so long; return the file of all answers.

        With a ``rate`` ask so often a second instead, whether answers have come or not.
        Raises BenchError where the generator fails.
        """
        options = (f"-rate={rate}", f"-duration={seconds}s")
        return await self._attack(target, connections, self._write(target), *options, seconds=seconds)

    async def volley(self, target: Target, connections: int, count: int) -> Path:
        """Ask ``count`` times as fast as ``connections`` connections can; return the file of all answers.

        Raises BenchError where the generator fails.
        """
        return await self._attack(
            target, connections, self._write(target, times=count), "-rate=0", "-duration=0", "-lazy"
        )

    async def _attack(
        self, target: Target, connections: int, targets: Path, *options: str, seconds: float = 0.0
    ) -> Path:
        results = self._folder / f"{target.name}-{connections}.bin"
        command = [
            *(str(self._program), "attack", *options, "-http2=false", "-keepalive"),
            *(f"-workers={connections}", f"-max-workers={connections}"),
            *(f"-connections={connections}", f"-max-connections={connections}"),
            *(f"-targets={targets}", f"-output={results}"),
            *((f"-root-certs={target.authority}",) if target.authority else ()),
        ]
        process = await asyncio.create_subprocess_exec(*command, process_group=self._group)
        await _finished(process, seconds + _SPARE_SECONDS)
        return results

    async def hits(self, results: Path) -> AsyncIterator[Hit]:
        """Yield every answer of a file. Raises BenchError where it cannot be read to its end."""
        process = await asyncio.create_subprocess_exec(
            *(str(self._program), "encode", "-to=json", str(results)),
            process_group=self._group,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
        if process.stdout is None:
            raise BenchError("vegeta encode has no output")
        async for line in process.stdout:
            hit = _hit(line)
            if hit.error != _OUT_OF_TARGETS:
                yield hit
        await _finished(process, _SPARE_SECONDS)

    def _write(self, target: Target, *, times: int = 1) -> Path:
        body = self._folder / f"{target.name}.body"
        body.write_bytes(target.body)
        lines = [f"POST {target.url}", *(f"{name}: {value}" for name, value in target.headers.items()), f"@{body}"]
        path = self._folder / f"{target.name}.targets"
        path.write_text(("\n".join(lines) + "\n\n") * times)
        return path


def _hit(line: bytes) -> Hit:
    one = orjson.loads(line)
    at = datetime.fromisoformat(one["timestamp"]).timestamp()
    # vegeta writes []byte as Go does: Base64, or null for none.
    return Hit(at, one["latency"] / 1e9, one["code"], one["error"], b64decode(one["body"] or ""))


async def _finished(process: asyncio.subprocess.Process, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            status = await process.wait()
    except TimeoutError:
        process.kill()
        raise BenchError(f"vegeta did not end within {seconds:.0f} s") from None
    if status:
        raise BenchError(f"vegeta ended with status {status}")
