"""The one place where the parts are made and joined."""

import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from broker.audit import AuditFile
from broker.clock import SystemClock
from broker.config import Config, VaultConfig
from broker.endpoints import Services, api, cluster_info
from broker.http.ops import OpsEndpoint, ops_app
from broker.http.problems import malformed
from broker.http.protocol import Malformed
from broker.kube.anchors import KubeAnchors
from broker.kube.events import KubeEvents
from broker.kube.lease import KubeLease
from broker.kube.registry import WatchedRegistry
from broker.kube.session import KubeSession
from broker.kube.status import KubeStatusWriter
from broker.kube.token_requests import TokenRequests, unverified_claims
from broker.kube.token_reviews import TokenReviews
from broker.metrics import Metrics
from broker.model.client import ClientId
from broker.model.decision import Rules
from broker.model.lease import Timing
from broker.model.vault_path import VaultPlace
from broker.ports import Clock
from broker.proofs import ClusterNames, proof_checks
from broker.services.anchor_book import AnchorBook
from broker.services.authenticate import Authenticator, Checks
from broker.services.board import StatusBoard
from broker.services.deliver import Deliverer
from broker.services.explain import Explainer
from broker.services.failure_limit import FailureLimit
from broker.services.introspect import Introspector
from broker.services.issue import Issuer
from broker.services.leadership import Leadership
from broker.services.near_misses import NearMisses
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
    reviews: TokenReviews
    events: KubeEvents
    checks: Checks
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
        clock, reviews = SystemClock(), TokenReviews(session)
        rules = _rules(config, session)
        cluster = ClusterNames(str(unverified_claims(session.token)["iss"]), rules.api_audience)
        checks = await stack.enter_async_context(proof_checks(config, reviews, cluster, clock, metrics))
        parts = Parts(
            config=config,
            clock=clock,
            metrics=metrics,
            audit=audit,
            rules=rules,
            session=session,
            registry=WatchedRegistry(session, metrics),
            minter=TokenRequests(session, metrics),
            anchors=KubeAnchors(session),
            reviews=reviews,
            events=KubeEvents(session, clock, socket.gethostname(), metrics),
            checks=checks,
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
    near_misses, leadership = NearMisses(registry, parts.events), _leadership(parts)
    jobs: dict[str, Job] = {
        "credentials": parts.session.refresh_forever,
        "lease": leadership.run,
        "registry": registry.run,
        "reconcile": reconciler.queue.run,
        "status": board.queue.run,
        "near-misses": near_misses.queue.run,
    }
    rotator = None
    if parts.vault is not None:
        rotator = _rotator(parts, parts.vault, board)
        jobs["rotate"] = rotator.queue.run
        jobs["sweep"] = _sweep(parts, parts.vault, rotator)
    registry.on_change = _both(reconciler, rotator)
    services = Services(
        authenticator=_authenticator(parts, near_misses),
        issuer=issuer,
        deliverer=Deliverer(rotator, issuer, parts.rules, parts.clock),
        explainer=_explainer(parts, book, board),
        introspector=Introspector(parts.reviews, parts.anchors, board.vault_version),
    )
    ops = OpsEndpoint(parts.metrics.registry, lambda: None if registry.fresh else "registry_stale")
    return Broker(
        api=api(
            parts.config,
            services,
            rules=parts.rules,
            clock=parts.clock,
            metrics=parts.metrics,
            new_request_id=new_request_id,
        ),
        ops=ops_app(ops),
        malformed=malformed(new_request_id, parts.metrics),
        jobs=jobs,
    )


def _leadership(parts: Parts) -> Leadership:
    lease = parts.config.lease
    leadership = Leadership(
        store=KubeLease(parts.session, parts.config.namespace, lease.name),
        clock=parts.clock,
        metrics=parts.metrics,
        identity=f"{socket.gethostname()}_{secrets.token_hex(8)}",
        timing=Timing(lease.duration_seconds),
    )
    parts.metrics.follow_leader(lambda: leadership.leading)
    return leadership


def _explainer(parts: Parts, book: AnchorBook, board: StatusBoard) -> Explainer:
    in_vault = parts.vault is not None
    return Explainer(rules=parts.rules, clock=parts.clock, anchors=book, board=board, in_vault=in_vault)


def _authenticator(parts: Parts, near_misses: NearMisses) -> Authenticator:
    return Authenticator(
        registry=parts.registry,
        checks=parts.checks,
        limit=FailureLimit(parts.clock),
        metrics=parts.metrics,
        clock=parts.clock,
        near_miss=near_misses,
    )


def _board(parts: Parts) -> StatusBoard:
    return StatusBoard(
        registry=parts.registry,
        writer=KubeStatusWriter(parts.session),
        events=parts.events,
        clock=parts.clock,
        metrics=parts.metrics,
        proofs=parts.checks.policy,
    )


def _rotator(parts: Parts, vault: KvStore, board: StatusBoard) -> Rotator:
    place = _place(parts.config)
    writer = CopyWriter(
        store=vault,
        anchors=parts.anchors,
        minter=parts.minter,
        audit=parts.audit,
        clock=parts.clock,
        cluster=cluster_info(parts.config),
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


def _rules(config: Config, session: KubeSession) -> Rules:
    own = (config.vault and config.vault.auth_audience, config.listen.public_url)
    reserved = {audience for audience in own if audience}
    return Rules(config.namespace, _api_audience(config, session), frozenset(reserved))


def _api_audience(config: Config, session: KubeSession) -> str:
    """Return what the API server itself put into the broker's own token, unless the operator says otherwise."""
    if config.kubernetes.audience:
        return config.kubernetes.audience
    audiences = unverified_claims(session.token)["aud"]
    return str(audiences if isinstance(audiences, str) else audiences[0])
