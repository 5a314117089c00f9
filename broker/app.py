"""The one place where the parts are made and joined."""

import asyncio
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import structlog
import uvloop
from aiohttp import web

from broker.audit import AuditFile
from broker.clock import SystemClock
from broker.config import Config, ConfigError, VaultConfig, load
from broker.http.api import Contract, api_app
from broker.http.grants import GrantsEndpoint
from broker.http.listeners import Listener, TlsReloader
from broker.http.ops import OpsEndpoint, ops_app
from broker.http.tokens import TokensEndpoint
from broker.identity import secret
from broker.kube.anchors import KubeAnchors
from broker.kube.events import KubeEvents
from broker.kube.registry import WatchedRegistry
from broker.kube.session import KubeSession
from broker.kube.status import KubeStatusWriter
from broker.kube.token_requests import TokenRequests, unverified_claims
from broker.logs import set_up_logging
from broker.metrics import Metrics
from broker.model.client import ClientId
from broker.model.cluster import ClusterInfo
from broker.model.decision import Rules
from broker.model.vault_path import VaultPlace
from broker.services.anchor_book import AnchorBook
from broker.services.authenticate import Authenticator
from broker.services.board import StatusBoard
from broker.services.deliver import Deliverer
from broker.services.issue import Issuer
from broker.services.reconcile import Reconciler
from broker.services.rotate import Rotator
from broker.services.sweep import Sweeper
from broker.services.vault_write import CopyWriter
from broker.vault.login import VaultLogin
from broker.vault.store import KvStore
from broker.vault.transport import VaultTransport

log = structlog.get_logger(__name__)

Job = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker made ready to run: two listeners, and what goes on beside them."""

    api: web.Application
    ops: web.Application
    jobs: dict[str, Job]


def new_request_id() -> str:
    """Return the id under which one request is found in the answer, the log and the audit record."""
    return secrets.token_hex(8)


@asynccontextmanager
async def broker(config: Config) -> AsyncIterator[Broker]:
    """Make all parts from the configuration, and close what has to be closed."""
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        audit = stack.enter_context(AuditFile(config.audit.file, metrics))
        kube = config.kubernetes
        session = await stack.enter_async_context(
            KubeSession(kube.server, kube.ca_file, kube.token_file, kube.timeout_seconds)
        )
        vault = await stack.enter_async_context(_vault_store(config.vault, metrics)) if config.vault else None
        yield _joined(config, session, vault, audit, metrics)


@asynccontextmanager
async def _vault_store(vault: VaultConfig, metrics: Metrics) -> AsyncIterator[KvStore]:
    clock = SystemClock()
    async with (
        VaultTransport(vault.address, vault.ca_file, vault.timeout_seconds) as transport,
        VaultLogin(
            transport,
            mount=vault.auth_mount,
            role=vault.auth_role,
            token_file=vault.token_file,
            clock=clock,
            metrics=metrics,
        ) as login,
    ):
        yield KvStore(login.call, vault.mount, clock)


def _joined(config: Config, session: KubeSession, vault: KvStore | None, audit: AuditFile, metrics: Metrics) -> Broker:
    clock, book = SystemClock(), AnchorBook()
    rules, anchors = _rules(config, session), KubeAnchors(session)
    minter = TokenRequests(session, metrics)
    registry = WatchedRegistry(session, metrics)
    events = KubeEvents(session, clock, socket.gethostname(), metrics)
    board = StatusBoard(registry, KubeStatusWriter(session), events, clock, metrics)
    reconciler = Reconciler(registry=registry, anchors=anchors, minter=minter, book=book, board=board, rules=rules)
    issuer = Issuer(
        minter=minter,
        anchors=book,
        audit=audit,
        metrics=metrics,
        clock=clock,
        rules=rules,
        recheck=reconciler.queue.add,
    )
    jobs: dict[str, Job] = {
        "credentials": session.refresh_forever,
        "registry": registry.run,
        "reconcile": reconciler.queue.run,
        "status": board.queue.run,
    }
    rotator = None
    if vault is not None:
        rotator = _rotator(
            config,
            vault,
            registry=registry,
            board=board,
            minter=minter,
            anchors=anchors,
            audit=audit,
            rules=rules,
            metrics=metrics,
        )
        jobs["rotate"] = rotator.queue.run
        jobs["sweep"] = _sweep(config, registry, vault, rotator)
    registry.on_change = _both(reconciler, rotator)
    authenticator = Authenticator(registry, secret, metrics)
    deliverer = Deliverer(rotator, issuer, rules, clock)
    return Broker(
        api=_api(config, authenticator=authenticator, issuer=issuer, deliverer=deliverer, rules=rules, metrics=metrics),
        ops=ops_app(OpsEndpoint(metrics.registry, lambda: None if registry.fresh else "registry_stale")),
        jobs=jobs,
    )


def _rotator(
    config: Config,
    vault: KvStore,
    *,
    registry: WatchedRegistry,
    board: StatusBoard,
    minter: TokenRequests,
    anchors: KubeAnchors,
    audit: AuditFile,
    rules: Rules,
    metrics: Metrics,
) -> Rotator:
    clock, place = SystemClock(), _place(config)
    writer = CopyWriter(
        store=vault,
        anchors=anchors,
        minter=minter,
        audit=audit,
        clock=clock,
        cluster=_cluster(config),
        place=place,
    )
    return Rotator(
        registry=registry,
        store=vault,
        writer=writer,
        board=board,
        place=place,
        rules=rules,
        clock=clock,
        metrics=metrics,
        new_request_id=new_request_id,
    )


def _both(reconciler: Reconciler, rotator: Rotator | None) -> Callable[[ClientId], None]:
    """Return what follows the registry."""

    def changed(client_id: ClientId) -> None:
        reconciler.changed(client_id)
        if rotator is not None:
            rotator.changed(client_id)

    return changed


def _sweep(config: Config, registry: WatchedRegistry, vault: KvStore, rotator: Rotator) -> Job:
    """Return the sweep of Vault, which must not start before it is known who is registered."""
    sweeper = Sweeper(store=vault, place=_place(config), unwanted=rotator.unwanted, hand_over=rotator.queue.add)

    async def sweep() -> None:
        await registry.synced.wait()
        sweeper.queue.add(config.cluster.name)
        await sweeper.queue.run()

    return sweep


def _place(config: Config) -> VaultPlace:
    if config.vault is None:
        raise RuntimeError("there is no place in Vault without a Vault")
    return VaultPlace(config.vault.mount, config.vault.prefix, config.cluster.name, config.cluster.server)


def _cluster(config: Config) -> ClusterInfo:
    cluster = config.cluster
    return ClusterInfo(cluster.name, cluster.server, cluster.ca_file.read_text(encoding="ascii"))


def _api(
    config: Config,
    *,
    authenticator: Authenticator,
    issuer: Issuer,
    deliverer: Deliverer,
    rules: Rules,
    metrics: Metrics,
) -> web.Application:
    tokens = TokensEndpoint(
        authenticator=authenticator,
        issuer=issuer,
        deliverer=deliverer,
        cluster=_cluster(config),
        metrics=metrics,
        new_request_id=new_request_id,
        body_timeout_seconds=config.listen.body_timeout_seconds,
    )
    grants = GrantsEndpoint(authenticator, rules, SystemClock(), new_request_id)
    return api_app(tokens, grants, Contract(_contract()), new_request_id=new_request_id, metrics=metrics)


def _rules(config: Config, session: KubeSession) -> Rules:
    reserved = {config.vault.auth_audience} if config.vault else set()
    return Rules(config.namespace, _api_audience(config, session), frozenset(reserved))


def _api_audience(config: Config, session: KubeSession) -> str:
    """Return what the API server itself put into the broker's own token, unless the operator says otherwise."""
    if config.kubernetes.audience:
        return config.kubernetes.audience
    audiences = unverified_claims(session.token)["aud"]
    return str(audiences if isinstance(audiences, str) else audiences[0])


def _contract() -> str:
    packaged = resources.files("broker") / "openapi.yaml"
    checkout = Path(__file__).parent.parent / "openapi.yaml"
    return packaged.read_text(encoding="utf-8") if packaged.is_file() else checkout.read_text(encoding="utf-8")


async def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT, then finish the requests in flight. Raises ExceptionGroup when a job dies."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with broker(config) as parts, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(job(), name=name) for name, job in parts.jobs.items()]
        async with _listening(config, parts, tasks):
            log.info("broker.started", pid=os.getpid())
            await stop.wait()
            log.info("broker.stopping")
        for task in running:
            task.cancel()


@asynccontextmanager
async def _listening(config: Config, parts: Broker, tasks: asyncio.TaskGroup) -> AsyncIterator[None]:
    listen = config.listen
    tls = None
    reloading = None
    if listen.tls is not None and listen.tls != "terminated-upstream":
        reloader = TlsReloader(listen.tls.cert_file, listen.tls.key_file)
        tls = reloader.context
        reloading = tasks.create_task(reloader.run(), name="tls")
    api = Listener("api", parts.api, listen.address, listen.port, tls=tls, drain_seconds=listen.drain_seconds)
    ops = Listener("ops", parts.ops, config.ops.address, config.ops.port, tls=None, drain_seconds=1)
    try:
        async with ops, api:
            yield
    finally:
        if reloading is not None:
            reloading.cancel()


def _calm_garbage_collection() -> None:
    """Collect seldom, and never look at what was there at start: 75 to 149 us a token (docs/performance.md)."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(config_path: Path) -> int:
    """Serve with the configuration of a file and return the process' exit code: 2 for a wrong configuration."""
    try:
        config = load(config_path)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    set_up_logging(config.log_level)
    _calm_garbage_collection()
    code = 0
    try:
        uvloop.run(serve(config))
    except* OSError as group:
        sys.stderr.write(f"cannot serve: {'; '.join(str(error) for error in group.exceptions)}\n")
        code = 1
    return code
