"""The one place where the parts are made and joined."""

import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from broker.audit import AuditFile
from broker.clock import SystemClock
from broker.config import Config, VaultConfig
from broker.http.api import Contract, api_app
from broker.http.formats import Formats
from broker.http.grants import GrantsEndpoint
from broker.http.oauth import OauthEndpoint
from broker.http.ops import OpsEndpoint, ops_app
from broker.http.problems import malformed
from broker.http.protocol import Malformed
from broker.http.tokens import TokensEndpoint
from broker.identity import secret
from broker.kube.anchors import KubeAnchors
from broker.kube.events import KubeEvents
from broker.kube.registry import WatchedRegistry
from broker.kube.session import KubeSession
from broker.kube.status import KubeStatusWriter
from broker.kube.token_requests import TokenRequests, unverified_claims
from broker.metrics import Metrics
from broker.model.client import ClientId
from broker.model.cluster import ClusterInfo
from broker.model.decision import Rules
from broker.model.vault_path import VaultPlace
from broker.ports import Clock
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
    """A broker made ready to run: two applications and what answers no-HTTP, and what goes on beside them."""

    api: web.Application
    ops: web.Application
    malformed: Malformed
    jobs: dict[str, Job]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the services stand on. ``vault`` is None where the configuration names none."""

    config: Config
    clock: Clock
    metrics: Metrics
    audit: AuditFile
    rules: Rules
    session: KubeSession
    registry: WatchedRegistry
    minter: TokenRequests
    anchors: KubeAnchors
    vault: KvStore | None


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
        parts = Parts(
            config=config,
            clock=SystemClock(),
            metrics=metrics,
            audit=audit,
            rules=_rules(config, session),
            session=session,
            registry=WatchedRegistry(session, metrics),
            minter=TokenRequests(session, metrics),
            anchors=KubeAnchors(session),
            vault=vault,
        )
        yield _joined(parts)


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


def _joined(parts: Parts) -> Broker:
    book, registry = AnchorBook(), parts.registry
    board = _board(parts)
    reconciler = Reconciler(
        registry=registry, anchors=parts.anchors, minter=parts.minter, book=book, board=board, rules=parts.rules
    )
    issuer = Issuer(
        minter=parts.minter,
        anchors=book,
        audit=parts.audit,
        metrics=parts.metrics,
        clock=parts.clock,
        rules=parts.rules,
        recheck=reconciler.queue.add,
    )
    jobs: dict[str, Job] = {
        "credentials": parts.session.refresh_forever,
        "registry": registry.run,
        "reconcile": reconciler.queue.run,
        "status": board.queue.run,
    }
    rotator = None
    if parts.vault is not None:
        rotator = _rotator(parts, parts.vault, board)
        jobs["rotate"] = rotator.queue.run
        jobs["sweep"] = _sweep(parts, parts.vault, rotator)
    registry.on_change = _both(reconciler, rotator)
    ops = OpsEndpoint(parts.metrics.registry, lambda: None if registry.fresh else "registry_stale")
    return Broker(
        api=_api(parts, issuer, rotator),
        ops=ops_app(ops),
        malformed=malformed(new_request_id, parts.metrics),
        jobs=jobs,
    )


def _board(parts: Parts) -> StatusBoard:
    events = KubeEvents(parts.session, parts.clock, socket.gethostname(), parts.metrics)
    return StatusBoard(parts.registry, KubeStatusWriter(parts.session), events, parts.clock, parts.metrics)


def _rotator(parts: Parts, vault: KvStore, board: StatusBoard) -> Rotator:
    place = _place(parts.config)
    writer = CopyWriter(
        store=vault,
        anchors=parts.anchors,
        minter=parts.minter,
        audit=parts.audit,
        clock=parts.clock,
        cluster=_cluster(parts.config),
        place=place,
    )
    return Rotator(
        registry=parts.registry,
        store=vault,
        writer=writer,
        board=board,
        place=place,
        rules=parts.rules,
        clock=parts.clock,
        metrics=parts.metrics,
        new_request_id=new_request_id,
    )


def _both(reconciler: Reconciler, rotator: Rotator | None) -> Callable[[ClientId], None]:
    """Return what follows the registry."""

    def changed(client_id: ClientId) -> None:
        reconciler.changed(client_id)
        if rotator is not None:
            rotator.changed(client_id)

    return changed


def _sweep(parts: Parts, vault: KvStore, rotator: Rotator) -> Job:
    """Return the sweep of Vault, which must not start before it is known who is registered."""
    place = _place(parts.config)
    sweeper = Sweeper(store=vault, place=place, unwanted=rotator.unwanted, hand_over=rotator.queue.add)

    async def sweep() -> None:
        await parts.registry.synced.wait()
        sweeper.queue.add(parts.config.cluster.name)
        await sweeper.queue.run()

    return sweep


def _place(config: Config) -> VaultPlace:
    if config.vault is None:
        raise RuntimeError("there is no place in Vault without a Vault")
    return VaultPlace(config.vault.mount, config.vault.prefix, config.cluster.name, config.cluster.server)


def _cluster(config: Config) -> ClusterInfo:
    cluster = config.cluster
    return ClusterInfo(cluster.name, cluster.server, cluster.ca_file.read_text(encoding="ascii"))


def _api(parts: Parts, issuer: Issuer, rotator: Rotator | None) -> web.Application:
    authenticator = Authenticator(parts.registry, secret, parts.metrics)
    tokens = TokensEndpoint(
        authenticator=authenticator,
        issuer=issuer,
        deliverer=Deliverer(rotator, issuer, parts.rules, parts.clock),
        formats=Formats(_cluster(parts.config)),
        metrics=parts.metrics,
        new_request_id=new_request_id,
        body_timeout_seconds=parts.config.listen.body_timeout_seconds,
    )
    grants = GrantsEndpoint(authenticator, parts.rules, parts.clock, new_request_id)
    oauth = OauthEndpoint(
        authenticator=authenticator,
        issuer=issuer,
        clock=parts.clock,
        metrics=parts.metrics,
        new_request_id=new_request_id,
        body_timeout_seconds=parts.config.listen.body_timeout_seconds,
    )
    return api_app(tokens, grants, Contract(_contract()), oauth, new_request_id=new_request_id, metrics=parts.metrics)


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
