"""The running process: what :mod:`broker.app` made, on its sockets, until a signal ends it."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
import uvloop

from broker import heap
from broker.app import Broker, broker
from broker.config import Config, ConfigError, load
from broker.http.listeners import Listener, TlsReloader
from broker.logs import set_up_logging

log = structlog.get_logger(__name__)

OTHER_FILES = 768
"""What is open beside callers' connections: those to the API server, to Vault and to the other listener, and files."""


class Stop:
    """What signals ask for: the first SIGTERM a stop, a second one or SIGINT (Ctrl-C) one without delay."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def listen(self) -> None:
        """Take the signals, which do nothing else from now on."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminated)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _terminated(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()

    def _interrupted(self) -> None:
        self.asked.set()
        self.hurried.set()


async def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT, and stop in order. Raises ExceptionGroup when a job dies.

    First the process is not ready any more, and serves on for ``listen.shutdown_delay_seconds``, until those who send
    callers here have noticed; then it takes nobody in, finishes the requests in flight, and gives the Lease back.
    """
    stop = Stop()
    stop.listen()
    async with broker(config) as parts, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(job(), name=name) for name, job in parts.jobs.items()]
        running.append(tasks.create_task(heap.trim_forever(), name="heap"))
        async with _listening(config, parts, tasks) as api:
            log.info("broker.started", pid=os.getpid())
            await stop.asked.wait()
            parts.leave()
            api.part()
            await _delay(config.listen.shutdown_delay_seconds, stop.hurried)
        for task in running:
            task.cancel()


async def _delay(seconds: float, hurried: asyncio.Event) -> None:
    log.info("broker.stopping", delay_seconds=seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurried.wait()
    log.info("broker.draining")


@asynccontextmanager
async def _listening(config: Config, parts: Broker, tasks: asyncio.TaskGroup) -> AsyncIterator[Listener]:
    listen = config.listen
    tls = None
    reloading = None
    if listen.tls is not None and listen.tls != "terminated-upstream":
        reloader = TlsReloader(listen.tls.cert_file, listen.tls.key_file, listen.tls.client_ca_file)
        tls = reloader.context
        parts.scraped.credential("tls", lambda: reloader.expires_at)
        reloading = tasks.create_task(reloader.run(), name="tls")
    api = Listener(
        "api",
        parts.api,
        listen.address,
        listen.port,
        malformed=parts.malformed,
        tls=tls,
        drain_seconds=listen.drain_seconds,
        most=_room(listen.max_connections),
        turned_away=parts.turned_away,
        hung_up=parts.hung_up,
    )
    ops = Listener(
        "ops", parts.ops, config.ops.address, config.ops.port, malformed=parts.malformed, tls=None, drain_seconds=1
    )
    try:
        async with ops, api:
            yield api
    finally:
        if reloading is not None:
            reloading.cancel()


def _room(wanted: int) -> int:
    """Return for how many callers' connections there is room, and make it where the process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = wanted if soft == resource.RLIM_INFINITY else min(wanted, max(soft - OTHER_FILES, soft // 2))
    if room < wanted:
        log.warning("listener.less_room", wanted=wanted, room=room, open_files=soft)
    return room


def run(config_path: Path) -> int:
    """Serve with the configuration of a file and return the process' exit code: 2 for a wrong configuration."""
    try:
        config = load(config_path)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    set_up_logging(config.log_level)
    heap.collect_seldom()
    code = 0
    try:
        uvloop.run(serve(config))
    except* ConfigError as group:
        sys.stderr.write(f"{config_path}: {'; '.join(str(error) for error in group.exceptions)}\n")
        code = 2
    except* OSError as group:
        sys.stderr.write(f"cannot serve: {'; '.join(str(error) for error in group.exceptions)}\n")
        code = 1
    return code
