"""Programs that tests start, kept in one process group that ends with the process that made it.

The group's leader is a guard, a shell that reads from a pipe whose other end only we hold: when we end,
however we end, it reads end-of-file and kills the group. Nothing depends on our own clean-up code.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Self

# Hang-ups are ignored because the kernel sends one to a group with a frozen program when we die. The
# folder goes first, since nothing runs after the kill.
_GUARD = 'trap "" HUP INT TERM; read -r _; rm -rf -- "$1"; kill -s KILL 0'
_POLL_SECONDS = 0.03
_STOP_SECONDS = 10.0
_TAIL_LINES = 25
_PORTS, _PORT_TRIES = range(15000, 32000), 100


class ProgramError(RuntimeError):
    """A program ended, or did not become what was waited for; the message carries the end of its log."""


@contextmanager
def guarded_folder(parent: Path | None = None) -> Iterator[tuple[Path, int]]:
    """Make a temporary folder, and a process group to start programs in; both vanish with this process.

    Yields the folder and the group's number, for ``subprocess.Popen(process_group=...)``. On leaving, what
    still runs in the group is killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="tokenbroker-", dir=parent))
    guard = _start_guard(folder)
    try:
        yield folder, guard.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGKILL)
        guard.communicate()
        shutil.rmtree(folder, ignore_errors=True)


class ProcessGroup:
    """The programs of one test run and their temporary folder; both vanish with this process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.id = number
        self._programs: list[Program] = []

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        """Open an empty group; on leaving, every program is killed and the folder removed."""
        with guarded_folder() as (folder, number):
            group = cls(folder, number)
            try:
                yield group
            finally:
                await asyncio.gather(*(program.kill() for program in group._programs))

    @classmethod
    @asynccontextmanager
    async def joining(cls, group: Self | None) -> AsyncIterator[Self]:
        """Use ``group``, which then stays as it is, or open one as ``start`` does."""
        if group is not None:
            yield group
        else:
            async with cls.start() as own:
                yield own

    def program(
        self, name: str, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
    ) -> "Program":
        """Describe a program of this group; it is not started yet.

        ``environment`` is added to ours. Output is appended to ``<folder>/<name>.log``.
        """
        program = Program(self, name, [str(word) for word in command], dict(environment or {}))
        self._programs.append(program)
        return program


class Program:
    """One program that can be started again after it was stopped, and frozen in between."""

    def __init__(self, group: ProcessGroup, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.log = group.folder / f"{name}.log"
        self._group = group
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the last start; raises ProgramError before the first."""
        return self._started().pid

    @property
    def code(self) -> int | None:
        """How it ended: its exit code, or a signal as a negative number; None while it runs. Raises ProgramError."""
        return self._started().poll()

    def start(self) -> None:
        """Start the program, again with the same command; readiness is the caller's to wait for."""
        if self.running:
            raise ProgramError(f"{self.name} runs already as process {self.pid}")
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                process_group=self._group.id,
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    async def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Ask the program to end, and kill it when it has not done so after ``seconds``."""
        if not self.running:
            return
        self._signal(signal.SIGTERM)
        if not await self._ended(seconds):
            await self.kill()

    async def kill(self) -> None:
        """End the program without a chance to tidy up, like a crash of its machine."""
        if self.running:
            self._signal(signal.SIGKILL)
            await self._ended(_STOP_SECONDS)

    def pause(self) -> None:
        """Freeze the program: its connections stay open and nothing answers, from when this returns."""
        self._signal(signal.SIGSTOP)
        # The signal takes its time to reach all threads, and one of them may answer meanwhile.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen program go on."""
        self._signal(signal.SIGCONT)

    def tail(self) -> str:
        """Return the last lines of the log."""
        if not self.log.exists():
            return f"{self.name}: no log"
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"--- end of {self.name}.log", *lines])

    async def _ended(self, seconds: float) -> bool:
        try:
            await asyncio.to_thread(self._started().wait, seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        self._started().send_signal(number)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProgramError(f"{self.name} was never started")
        return self._process


async def until(
    check: Callable[[], Awaitable[bool]],
    *,
    what: str,
    seconds: float = 30.0,
    programs: Iterable[Program] = (),
    pause: float = _POLL_SECONDS,
) -> None:
    """Wait until ``check`` answers true, asking it again after ``pause`` seconds.

    Raises ProgramError with the ends of the logs of ``programs`` when one of them ends, or when ``seconds``
    are over; a check that hangs is cut off then as well.
    """
    watched = list(programs)
    try:
        async with asyncio.timeout(seconds):
            while not await check():
                _all_running(watched, what)
                await asyncio.sleep(pause)
    except TimeoutError as error:
        raise ProgramError(_failure(f"not after {seconds:.0f} s: {what}", watched)) from error


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listened on a moment ago.

    It is below those that the kernel gives to outgoing connections (32768 and up by default): one of these could take
    it before a server does, or while one is started again. Raises ProgramError where none is found.
    """
    for _ in range(_PORT_TRIES):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ProgramError("no port is free")


def _all_running(programs: list[Program], what: str) -> None:
    ended = [program for program in programs if not program.running]
    if ended:
        names = ", ".join(program.name for program in ended)
        raise ProgramError(_failure(f"{names} ended before: {what}", ended))


def _failure(message: str, programs: list[Program]) -> str:
    return "\n".join([message, *(program.tail() for program in programs)])


def _start_guard(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "guard", str(folder)],
        process_group=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
