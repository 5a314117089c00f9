"""A broker, or several, with clients under a steady load: what a fault is let loose on, and what is checked then."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

from broker.model.client import ROTATE_REQUESTED
from broker.model.times import timestamp
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.chaos.invariants import Copy, Explained, anchors, left_of, named_versions
from tests.support.chaos.ledger import NO_ANSWER, AuditTail, Ledger
from tests.support.chaos.levels import Level
from tests.support.chaos.links import Links
from tests.support.chaos.load import Caller, VaultApp, running
from tests.support.chaos.proxy import ChaosProxy
from tests.support.chaos.report import Outcome
from tests.support.chaos.setting import ROTATED, SINGLE, TOPS, load, proxy_of, registered, sections
from tests.support.lab import Lab
from tests.support.processes import until

STATUS, SUSPENSION, ROTATION = "status", "suspension", "rotation"
"""What is waited for after a fault, beside calls: a status that follows, a change in force, a copy that is replaced."""

WARM, WELL, WELL_SECONDS = 3, 3, 2.0
"""So many calls of each kind go well before the fault, and afterwards in a row, over so many seconds at least."""

HEALED_SECONDS = 90.0
SETTLED_SECONDS = 45.0


@dataclass(slots=True)
class Scene:
    """What one fault happens to. ``brokers`` share a Lease; each has a proxy of its own in ``proxies``, where asked."""

    lab: Lab
    tenant: Tenant
    brokers: list[BrokerProcess]
    proxies: list[ChaosProxy]
    clients: dict[str, Registered]
    callers: list[Caller]
    apps: list[VaultApp]
    ledger: Ledger
    audit: AuditTail
    outcomes: list[Outcome] = field(default_factory=list)
    """One for each fault so far."""
    levels: list[Level] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)
    """UIDs of anchors that nobody knows of any more, because Vault has lost what named them."""
    links: list[Links] = field(default_factory=list)
    """Each replica's network, where the test has made one."""
    ended: float = 0.0
    """When the last fault was over."""

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        lab: Lab,
        name: str,
        *,
        replicas: int = 1,
        proxied: bool = False,
        each: Sequence[Mapping[str, Any]] = (),
        tail: AuditTail | None = None,
        **overrides: Any,
    ) -> AsyncIterator[Self]:
        """Start ``replicas`` brokers, register clients and let the load begin; on leaving, nothing of them may be left.

        ``name`` is a DNS label of the scene's own, which is the only one in the lab as long as it lasts.
        A ``proxied`` broker reaches the API server by its proxy.
        ``overrides`` are sections of the configuration, as for :class:`BrokerProcess`, and ``each`` has one replica's.
        ``tail`` knows where audit records are found that are in no file.
        """
        async with AsyncExitStack() as stack:
            brokers, proxies = [], []
            for number in range(replicas):
                own = f"{name}-{number}"
                proxies += [await stack.enter_async_context(proxy_of(lab, own))] if proxied else []
                more = sections(lab, own, name, proxies[-1] if proxied else None) | overrides
                more |= each[number] if each else {}
                brokers.append(await stack.enter_async_context(BrokerProcess.start(lab, own, **more)))
            tenant, clients = await registered(lab, name)
            ledger, audit = Ledger(), tail or AuditTail()
            callers, apps = load(lab, brokers, clients, ledger, audit)
            scene = cls(lab, tenant, brokers, proxies, clients, callers, apps, ledger, audit)
            for broker in brokers:
                audit.follow(broker.audit_file)
            await scene._served()
            async with running([*callers, *apps]):
                await scene._warm()
                yield scene
            late = ledger.taken_violations()
            assert not late, "; ".join(late)
            await scene._gone()

    @property
    def broker(self) -> BrokerProcess:
        """The first broker."""
        return self.brokers[0]

    @property
    def proxy(self) -> ChaosProxy:
        """The first broker's proxy."""
        return self.proxies[0]

    @property
    def now(self) -> float:
        """The event loop's time, in seconds."""
        return asyncio.get_running_loop().time()

    @property
    def outcome(self) -> Outcome:
        """What became of the last fault."""
        return self.outcomes[-1]

    @asynccontextmanager
    async def fault(self, name: str) -> AsyncIterator[None]:
        """Note what callers see while the block runs: the fault begins and ends with it. ``name`` is for people."""
        self.outcomes.append(Outcome(name))
        began = self.now
        yield
        self.ended = self.now
        self.outcome.lasted = self.ended - began
        for what in self._kinds():
            self.outcome.seen[what] = self.ledger.outcomes(what, began, self.ended)
            self.outcome.slowest[what] = self.ledger.slowest(what, began, self.ended)

    async def sees(self, what: str, outcome: str, times: int = 1) -> None:
        """Wait until calls of a kind that begin from now on end so."""
        since = self.now

        async def seen() -> bool:
            return self.ledger.outcomes(what, since, self.now)[outcome] >= times

        await until(seen, what=f"{what} is answered {outcome}", seconds=HEALED_SECONDS)

    async def healed(self, *, levels: bool = True) -> Outcome:
        """Wait until everything works again, note when it did, and check all that must hold after a fault.

        Without ``levels``, nothing is said of memory, descriptors and tasks: connections that a fault has left are
        kept for two minutes, and the next fault may come earlier.
        """
        await asyncio.gather(self._status_follows(), self._rotates(), *map(self._well, self._kinds()))
        await self._suspension_is_in_force()
        if levels:
            await self._levels_are_back()
        await self._nothing_was_harmed()
        await self._anchors_are_explained()
        return self.outcome

    async def _served(self) -> None:
        programs = [broker.program for broker in self.brokers]
        for client in self.clients.values():
            ready = partial(_ready_somewhere, self.brokers, client.id)
            await until(ready, what=f"{client.id} is ready", programs=programs)
        for app in self.apps:
            await until(partial(_there, app), what=f"{app.what} has a version", programs=programs)

    async def _warm(self) -> None:
        async def warm() -> bool:
            return all(self.ledger.good(what) >= WARM for what in self._kinds())

        await until(warm, what="the load runs", seconds=HEALED_SECONDS)
        self.levels = [await Level.of(broker) for broker in self.brokers]

    async def _status_follows(self) -> None:
        await self.tenant.patch("probe", {"owner": uuid.uuid4().hex})
        await until(self._observed, what="a status follows", seconds=HEALED_SECONDS)
        self.outcome.healed[STATUS] = self.now - self.ended

    async def _observed(self) -> bool:
        _, resource = await self.lab.cluster.request("GET", f"{self.tenant.path}/probe")
        return bool(resource["status"].get("observedGeneration") == resource["metadata"]["generation"])

    async def _well(self, what: str) -> None:
        async def well() -> bool:
            since = self.ended + self.ledger.healed(what, self.ended)
            return self.ledger.good(what, since) >= WELL and self.now - since >= WELL_SECONDS

        await until(well, what=f"{what} works again", seconds=HEALED_SECONDS)
        self.outcome.healed[what] = self.ledger.healed(what, self.ended)

    async def _rotates(self) -> None:
        """Ask for a new version as ``tokenbroker client revoke-all`` does, and wait until the broker has written it."""
        copy = next(copy for copy in self._copies() if copy.app.what == ROTATED)
        label = await copy.label(self.lab)
        before = label.version if label is not None else 0  # Vault may have lost all
        asked = timestamp(datetime.now(UTC) + timedelta(seconds=1))
        body = {"metadata": {"annotations": {ROTATE_REQUESTED: asked}}}
        await self.lab.cluster.request("PATCH", f"{self.tenant.path}/kept", body)

        async def replaced() -> bool:
            label = await copy.label(self.lab)
            return label is not None and label.version > before

        await until(replaced, what="a copy is replaced", seconds=HEALED_SECONDS)
        self.outcome.healed[ROTATION] = self.now - self.ended

    async def _suspension_is_in_force(self) -> None:
        probe = self.clients["probe"]
        for suspended, status in ((True, 403), (False, 200)):
            began = self.now
            await self.tenant.patch("probe", {"suspend": suspended})
            for broker in self.brokers:
                await until(
                    partial(_answers, broker, probe, status),
                    what=f"suspended {suspended} is in force",
                    seconds=HEALED_SECONDS,
                )
            if suspended:
                self.outcome.healed[SUSPENSION] = self.now - began

    async def _levels_are_back(self) -> None:
        now: list[Level] = []

        async def back() -> bool:
            now[:] = [await Level.of(broker) for broker in self.brokers]
            return all(after.back_at(before) for before, after in zip(self.levels, now, strict=True))

        try:
            await until(back, what="levels are back", seconds=SETTLED_SECONDS)
        except RuntimeError as error:
            raise AssertionError(f"{[*map(str, now)]} instead of {[*map(str, self.levels)]}") from error
        self.outcome.levels = list(zip(self.levels, now, strict=True))

    async def _nothing_was_harmed(self) -> None:
        self.audit.refresh()
        twice = [digest for digest, records in self.audit.issued.items() if sum(map(_minted, records)) != 1]
        broken = [one for copy in self._copies() for one in await copy.broken(self.lab, self.tenant, self.audit)]
        harm = [*self.ledger.taken_violations(), *broken, *(f"token {digest} is not recorded once" for digest in twice)]
        if harm:
            raise AssertionError("; ".join(harm))

    async def _anchors_are_explained(self) -> None:
        """Wait for a moment in which they are: the load goes on."""
        unexplained = [""]

        async def explained() -> bool:
            unexplained[:] = [await self._unexplained()]
            return not unexplained[0]

        try:
            await until(explained, what="anchors are explained", seconds=SETTLED_SECONDS)
        except RuntimeError as error:
            raise AssertionError(unexplained[0]) from error

    async def _gone(self) -> None:
        """Delete the clients, and wait until nothing is left of them."""
        for name in self.clients:
            await self.lab.cluster.request("DELETE", f"{self.tenant.path}/{name}")
        left = [""]

        async def gone() -> bool:
            left[:] = [await left_of(self.lab, self.tenant)]
            return not left[0]

        try:
            await until(gone, what="nothing is left", seconds=HEALED_SECONDS)
        except RuntimeError as error:
            raise AssertionError(f"clients are deleted, and left are {left[0]}") from error

    async def _unexplained(self) -> str:
        single = next(caller for caller in self.callers if caller.what == SINGLE)
        unknown = self.ledger.outcomes(SINGLE, 0.0, self.now)[NO_ANSWER]
        versions, found = await named_versions(self.lab, self.apps), await self.anchors()
        return Explained(TOPS, versions, single.ids, unknown, self.forgotten).unexplained(found)

    async def anchors(self) -> list[dict[str, Any]]:
        """Return all anchors of the scene's clients."""
        return await anchors(self.lab, self.tenant.namespace)

    def _copies(self) -> list[Copy]:
        return [Copy(app) for app in self.apps]

    def _kinds(self) -> list[str]:
        return [*(caller.what for caller in self.callers), *(app.what for app in self.apps)]


def _minted(record: Mapping[str, Any]) -> bool:
    """Tell whether a record is about a token that nobody had before."""
    return not record.get("reused")


async def _ready_somewhere(brokers: Sequence[BrokerProcess], client: str) -> bool:
    namespace, _, name = client.partition("/")
    line = f'tokenbroker_client_ready{{client="{name}",namespace="{namespace}"}} 1.0'
    return any([line in (await broker.metrics()).splitlines() for broker in brokers])


async def _there(app: VaultApp) -> bool:
    return await app.token() is not None


async def _answers(broker: BrokerProcess, client: Registered, status: int) -> bool:
    return (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).status == status
