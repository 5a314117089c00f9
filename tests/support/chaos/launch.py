"""A broker whose clock a file sets, whose standard output is a pipe, or that has a bug: what nothing outside can do.

``python -m tests.support.chaos.launch [--clock FILE] [--stdout PIPE] [--bug] ARGUMENTS-OF-THE-BROKER``

Durations are left alone, as by somebody who sets a machine's clock; nobody needs the right to set this machine's.
"""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from broker.__main__ import main
from broker.clock import SystemClock
from broker.http.grants import GrantsEndpoint


def set_clock(file: Path) -> None:
    """Let all dates be off by the seconds that stand in a file, read at each look at the clock."""
    true_time = time.time

    def shifted() -> float:
        return true_time() + float(file.read_text())

    def now(_self: SystemClock) -> datetime:
        return datetime.fromtimestamp(shifted(), UTC)

    SystemClock.now = now  # type: ignore[assignment,method-assign]
    time.time = shifted


def set_stdout(pipe: Path) -> None:
    """Let standard output be a named pipe that somebody reads from already."""
    descriptor = os.open(pipe, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.close(descriptor)


def add_bug() -> None:
    """Let GET /v1/grants meet what nobody thought of."""

    async def get(_self: GrantsEndpoint, _request: web.BaseRequest) -> web.Response:
        raise LookupError("a bug")

    GrantsEndpoint.get = get  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--stdout", type=Path)
    parser.add_argument("--bug", action="store_true")
    options, rest = parser.parse_known_args()
    if options.clock is not None:
        set_clock(options.clock)
    if options.stdout is not None:
        set_stdout(options.stdout)
    if options.bug:
        add_bug()
    sys.argv = ["broker", *rest]
    main()
