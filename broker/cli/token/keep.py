"""Keep a token in a file fresh, for programs that read one: ``token get --watch``."""

import asyncio
import os
import random
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import typer

from broker.cli.errors import CommandError, ExitCode
from broker.cli.output import printable
from broker.cli.token.token_file import replaced
from broker.model.duration import format_duration
from broker.model.schedule import backoff
from broker.model.sensitive import Sensitive

RENEWED_AFTER = 2 / 3
"""The part of its life after which a token is replaced, so that the rest is left to try again."""

SPREAD = 0.1
"""How much earlier that may be by chance, so that many watchers do not come at once."""

COMMAND_SECONDS = 60.0
"""How long the command may take; then it is ended, with all that it started."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What goes into the file, and how many seconds the token in it lives."""

    content: Sensitive
    seconds: int


Sleep = Callable[[float], Awaitable[None]]


async def keep(
    fetch: Callable[[], Awaitable[Fetched]], path: Path, command: str | None, *, sleep: Sleep = asyncio.sleep
) -> None:
    """Replace the file ahead of the token's end, until a signal (SIGTERM, SIGINT) ends it; the file stays.

    Raises CommandError where the first token is refused; a broker that cannot serve is asked again, and so is
    any later one, for the old token still counts.
    """
    loop, work = asyncio.get_running_loop(), asyncio.create_task(_keep(fetch, path, command, sleep))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await work
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _keep(fetch: Callable[[], Awaitable[Fetched]], path: Path, command: str | None, sleep: Sleep) -> None:
    failures, written = 0, False
    while True:
        try:
            fetched = await fetch()
            replaced(path, fetched.content)
        except CommandError as error:
            if not written and error.code != ExitCode.UNAVAILABLE:
                raise
            failures += 1
            delay = max(error.retry_after, backoff(failures, random.random()))  # noqa: S311 - jitter, not a secret
            _say(f"{error} Trying again in {delay:.0f} s.")
        else:
            failures, written = 0, True
            early = SPREAD * random.random()  # noqa: S311 - jitter, not a secret
            delay = fetched.seconds * (RENEWED_AFTER - early)
            _say(f"{path} is good for {format_duration(fetched.seconds)}; replaced in {delay:.0f} s.")
            if command is not None:
                await _run(command)
        await sleep(delay)


async def _run(command: str) -> None:
    """Run the command; how it ends is told, and changes nothing else."""
    process = await asyncio.create_subprocess_shell(command, stdin=DEVNULL, start_new_session=True)
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            code = await process.wait()
    except TimeoutError:
        _say(f"the command did not end within {COMMAND_SECONDS:g} s, and was ended.")
    else:
        if code != 0:
            _say(f"the command ended with code {code}.")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _say(text: str) -> None:
    typer.echo(printable(text), err=True)
