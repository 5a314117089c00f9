"""The parts that the services stand on, made from the configuration."""

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from broker.audit import AuditFile
from broker.clock import SystemClock
from broker.config import Config
from broker.copies import pulse, vault_store
from broker.kube.canary import KubeCanary
from broker.kube.lease import KubeLease
from broker.kube.namespaces import WatchedNamespaces
from broker.kube.session import KubeSession
from broker.kube.token_requests import TokenRequests, unverified_claims
from broker.kube.token_reviews import TokenReviews
from broker.limits import namespace_limits
from broker.metrics.counted import Metrics
from broker.model.decision import Rules
from broker.model.lease import Timing
from broker.ports import Clock, Minter
from broker.proofs import ClusterNames, proof_checks
from broker.registries import Registered, registered
from broker.services.authenticate import Checks
from broker.services.canary import Canary, GuardedAnchors, GuardedMinter
from broker.services.leadership import Fitness, Leadership
from broker.services.rotation.pulse import NoVault, VaultPulse
from broker.services.server_time import ServerTime, TimedMinter
from broker.services.storms.decide_anew import Decider
from broker.services.storms.gate import Bounds, Gate
from broker.services.storms.gated import GatedReviewer
from broker.vault.store import KvStore


@dataclass(frozen=True, slots=True)
class Parts:
    """What the services stand on.

    ``vault`` and ``pulse`` are None where the configuration names none; ``canary`` where it says that there are no
    policies; ``namespaces`` where clients stand in a directory. ``time`` is the API server's where that of
    ``clock`` is wrong: what callers wait for uses ``clock``, which takes less.
    """

    config: Config
    clock: Clock
    time: Clock
    metrics: Metrics
    audit: AuditFile
    rules: Rules
    session: KubeSession
    clients: Registered
    namespaces: WatchedNamespaces | None
    minter: Minter
    canary: Canary | None
    decider: Decider
    leadership: Leadership
    reviews: TokenReviews
    gate: Gate
    deliveries: Gate
    checks: Checks
    vault: KvStore | None
    pulse: VaultPulse | None


@asynccontextmanager
async def made(config: Config) -> AsyncIterator[Parts]:
    """Make all parts from the configuration, and close what has to be closed."""
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        audit = stack.enter_context(AuditFile(config.audit.file, metrics))
        session = await stack.enter_async_context(_session(config))
        vault = await stack.enter_async_context(vault_store(config.vault, metrics)) if config.vault else None
        clock, reviews = SystemClock(), TokenReviews(session)
        namespaces = WatchedNamespaces(session, metrics) if config.registry.directory is None else None
        rules = _rules(config, session, namespaces)
        gate, cluster = _gate(config, clock, metrics), _cluster(session, rules)
        reviewer = GatedReviewer(reviews, gate)
        checks = await stack.enter_async_context(
            proof_checks(config, reviews.keys, reviewer, cluster, clock=clock, metrics=metrics)
        )
        beat = pulse(config, vault, clock, metrics) if vault is not None else None
        canary, time = _canary(config, session, clock, metrics), ServerTime(clock)
        minter = TimedMinter(TokenRequests(session, metrics), time)
        clients = registered(config, session, clock, metrics)
        yield Parts(
            config=config,
            clock=clock,
            time=time,
            metrics=metrics,
            audit=audit,
            rules=rules,
            session=session,
            clients=replace(clients, anchors=GuardedAnchors(clients.anchors, canary)) if canary else clients,
            namespaces=namespaces,
            minter=GuardedMinter(minter, canary) if canary else minter,
            canary=canary,
            decider=Decider(registry=clients.registry, rules=rules, clock=clock, locks=canary),
            leadership=_leadership(config, session, time, metrics, beat or NoVault()),
            reviews=reviews,
            gate=gate,
            deliveries=_gate(config, clock, metrics),
            checks=checks,
            vault=vault,
            pulse=beat,
        )


def _session(config: Config) -> KubeSession:
    kube = config.kubernetes
    return KubeSession(kube.server, kube.ca_file, kube.token_file, kube.timeout_seconds)


def _cluster(session: KubeSession, rules: Rules) -> ClusterNames:
    return ClusterNames(str(unverified_claims(session.token)["iss"]), rules.api_audience)


def _gate(config: Config, clock: Clock, metrics: Metrics) -> Gate:
    queue = config.queue
    bounds = Bounds(queue.concurrency, queue.waiting, queue.waiting_per_client, queue.wait_seconds)
    return Gate(bounds, clock, metrics.waits)


def _canary(config: Config, session: KubeSession, clock: Clock, metrics: Metrics) -> Canary | None:
    if config.admission.policies == "absent":
        return None
    return Canary(KubeCanary(session, config.namespace), clock, metrics)


def _leadership(
    config: Config, session: KubeSession, time: ServerTime, metrics: Metrics, fitness: Fitness
) -> Leadership:
    lease = config.lease
    return Leadership(
        store=KubeLease(session, config.namespace, lease.name, time.heard),
        clock=time,
        metrics=metrics,
        identity=f"{socket.gethostname()}_{secrets.token_hex(8)}",
        timing=Timing(lease.duration_seconds),
        fitness=fitness,
    )


def _rules(config: Config, session: KubeSession, namespaces: WatchedNamespaces | None) -> Rules:
    own = (config.vault and config.vault.auth_audience, config.listen.public_url)
    reserved = {audience for audience in own if audience}
    limits = namespace_limits(config, namespaces.labels if namespaces is not None else None)
    return Rules(config.namespace, _api_audience(config, session), frozenset(reserved), limits)


def _api_audience(config: Config, session: KubeSession) -> str:
    """Return what the API server itself put into the broker's own token, unless the operator says otherwise."""
    if config.kubernetes.audience:
        return config.kubernetes.audience
    audiences = unverified_claims(session.token)["aud"]
    return str(audiences if isinstance(audiences, str) else audiences[0])
