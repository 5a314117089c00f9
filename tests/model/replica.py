"""One broker process: its services, joined by :mod:`broker.app`, on ports that lead to models of the neighbours."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from broker import app
from broker.audit import AuditFile
from broker.config import ClusterConfig, Config, RegistryConfig, VaultConfig
from broker.copies import pulse
from broker.endpoints import Services
from broker.kube.namespaces import WatchedNamespaces
from broker.kube.session import KubeSession
from broker.kube.token_reviews import TokenReviews
from broker.limits import namespace_limits
from broker.metrics.counted import Metrics
from broker.model.client import Client, ClientId
from broker.model.decision import Rules, standing
from broker.model.lease import Timing
from broker.model.proof_policy import ProofPolicy
from broker.parts import Parts
from broker.ports import Clock
from broker.registries import Registered
from broker.services.authenticate import BearerCheck, Checks, SecretCheck
from broker.services.lead_news import LeadNews
from broker.services.leadership import Leadership
from broker.services.reconcile import Reconciler
from broker.services.rotation.left_anchors import LeftAnchors
from broker.services.rotation.rotate import Rotator
from broker.services.server_time import ServerTime, TimedMinter
from broker.services.storms.decide_anew import Decider
from broker.services.storms.gate import Bounds, Gate
from broker.serving import Shared
from broker.vault.store import KvStore
from tests.model.clocks import MachineClock
from tests.model.feed import FollowedNamespaces, FollowingRegistry, Sight
from tests.model.kubernetes import Kubernetes
from tests.model.ports import AuditBook, Ports
from tests.model.second_looks import SecondLooks
from tests.model.wire import Faults, Wire
from tests.support.fake_vault import FakeVault
from tests.support.rotation import PLACE

API_AUDIENCE = "https://kubernetes.default.svc"
TIMING = Timing(30)
CONFIG = Config.model_construct(
    cluster=ClusterConfig.model_construct(name=PLACE.cluster, server=PLACE.server, ca_file=Path(__file__)),
    registry=RegistryConfig.model_construct(directory=None),
    vault=VaultConfig.model_construct(address=PLACE.server, mount=PLACE.mount, prefix=PLACE.prefix),
    limits=(),
)
"""What the services read of it; any text will do for the cluster's CA."""


class Replica:
    """Runs from when it is made until it is stopped or dies. ``callers`` are requests that it answers."""

    def __init__(
        self, name: str, clock: MachineClock, kube: Kubernetes, vault: FakeVault, audit: AuditBook, faults: Faults
    ) -> None:
        self.name = name
        self.clock = clock
        self.time = ServerTime(clock)
        self.dead = False
        self.sight = Sight()
        self.callers: set[asyncio.Task[object]] = set()
        self.wire = Wire(self, faults)
        self.metrics = Metrics()
        looks = SecondLooks(name, self, kube, audit.wrong.append)
        self.registry = FollowingRegistry(kube, self.wire, self.sight, self.metrics)
        heard, written = self.time.heard, self.registry.written
        self.ports = Ports(self.wire, kube, vault, audit, name, TIMING.margin, looks, heard, written)
        self.namespaces = WatchedNamespaces(cast("KubeSession", None), self.metrics)
        self._labels = FollowedNamespaces(kube, self.wire, self.sight, self.namespaces)
        self.pulse = pulse(CONFIG, self.ports.store, clock, self.metrics)
        self.leadership = Leadership(
            store=self.ports.lease,
            clock=clock,
            metrics=self.metrics,
            identity=name,
            timing=TIMING,
            fitness=self.pulse,
        )
        self.gate, self.deliveries = (Gate(Bounds(1, 512, 256, 5.0), clock, self.metrics.waits) for _ in range(2))
        self._join(self._parts())
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(self._job(job), name=f"{name}-{which}") for which, job in self.jobs.items()]
        self.ended: list[BaseException] = []

    def _parts(self) -> Parts:
        rules = Rules("tokenbroker", API_AUDIENCE, frozenset(), namespace_limits(CONFIG, self.namespaces.labels))
        return Parts(
            config=CONFIG,
            clock=self.clock,
            time=self.time,
            metrics=self.metrics,
            audit=cast("AuditFile", self.ports),
            rules=rules,
            session=cast("KubeSession", self.ports),
            clients=Registered(self.registry, self.ports, self.ports, self.ports, self.ports.lead),
            namespaces=self.namespaces,
            minter=TimedMinter(self.ports, self.time),
            canary=None,
            decider=Decider(registry=self.registry, rules=rules, clock=self.clock, locks=None),
            leadership=self.leadership,
            reviews=cast("TokenReviews", self.ports),
            gate=self.gate,
            deliveries=self.deliveries,
            checks=Checks(cast("SecretCheck", None), cast("BearerCheck", None), None, ProofPolicy()),
            vault=cast("KvStore", self.ports.store),
            pulse=self.pulse,
        )

    def _join(self, parts: Parts) -> None:
        """Let the product join its services, and keep hold of them; nothing listens to HTTP."""
        kept: dict[str, Any] = {}
        with pytest.MonkeyPatch.context() as patch:
            for name in ("_reconciler", "Shared", "services", "keep_copies", "LeadNews"):
                patch.setattr(app, name, _keeping(kept, name))
            for unused in ("api", "ops_router", "malformed", "turned_away"):
                patch.setattr(app, unused, lambda *_, **__: None)
            patch.setattr(app, "KubeAccess", lambda session: session)
            patch.setattr(app, "KubeFinalizers", lambda session, written: kept.update(written=written) or session)
            jobs = app._joined(parts).jobs
        assert kept["written"] == parts.clients.registry.written
        self.reconciler: Reconciler = kept["_reconciler"]
        self.shared: Shared = kept["Shared"]
        self.services: Services = kept["services"]
        self.left: LeftAnchors = kept["keep_copies"].left
        self.news: LeadNews = kept["LeadNews"]
        self.jobs = jobs | {"namespaces": self._labels.run}

    async def _job(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it is, a broker would end by it
            self.ended.append(error)

    def die(self) -> None:
        """End as kill -9 does: nothing that it does from here on gets out."""
        self.dead = True
        for task in (*self.tasks, *self.callers):
            task.cancel()

    def stop(self) -> None:
        """End as SIGTERM does."""
        for task in (*self.tasks, *self.callers):
            task.cancel()

    def served(self, client_id: ClientId, clock: Clock | None = None) -> Client | None:
        """Return a client that may have tokens, as far as this replica knows; ``clock`` is its machine's by default."""
        seen = self.registry.seen(client_id)
        client = seen.client if seen is not None and not seen.deleting else None
        if client is None or not (self.registry.fresh and self.namespaces.fresh):
            return None
        opted_in = bool(self.namespaces._labels.get(client_id.namespace))
        return client if opted_in and standing(client, (clock or self.clock).now()) is None else None

    def all_served(self) -> Iterator[Client]:
        """Return all of them."""
        return (one for one in map(self.served, list(self.registry._known)) if one is not None)

    @property
    def leading(self) -> bool:
        """Tell whether it leads, by its own word."""
        return not self.dead and self.leadership.leading

    @property
    def keeper(self) -> Rotator:
        """Return what keeps copies in Vault."""
        assert self.shared.keeper is not None
        return self.shared.keeper

    @property
    def running(self) -> bool:
        """Tell whether it was neither stopped nor killed."""
        return not self.dead and not any(task.cancelling() or task.done() for task in self.tasks)


def _keeping(kept: dict[str, Any], name: str) -> Callable[..., Any]:
    """Return what makes a part as the product does, and keeps hold of it."""
    make = getattr(app, name)

    def made(*args: Any, **named: Any) -> Any:
        kept[name] = make(*args, **named)
        return kept[name]

    return made
