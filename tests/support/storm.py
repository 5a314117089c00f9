"""Requests of many instances at once, among hand-written fakes: a mint that can be held up, and all that decides."""

import asyncio
from dataclasses import dataclass, field, replace

from broker.errors import BrokerError, Reason
from broker.metrics.counted import Metrics
from broker.model.anchor import grant_anchor
from broker.model.audit_record import Issuance, Origin, RefusedRequest
from broker.model.client import Client, Proofs
from broker.model.decision import Ask
from broker.model.limits import NamespaceLimits
from broker.model.prepared import Prepared
from broker.model.proof import ProvedBy
from broker.model.token import MintedToken, TokenSpec
from broker.services.grant_book import GrantBook
from broker.services.issue import Issuer
from broker.services.mint import GrantMinter, Issued
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.decide_anew import Decider
from broker.services.storms.shared_tokens import SharedTokens
from broker.services.token_anchors import TokenAnchors
from tests.support import rotation
from tests.support.rotation import RULES, FakeCluster, FakeRegistry, HandClock, MemoryAudit, Power

REUSE = 60
BY_SECRET = ProvedBy("clientSecret", "")
ACCOUNT_UID = "account-1"
DEFAULT = Ask("default")


@dataclass
class HeldMints:
    """Implements Minter: mints wait while ``open`` is not set; ``fault`` is what they meet."""

    cluster: FakeCluster
    open: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None
    faults: list[Exception] = field(default_factory=list)
    asked: int = 0

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Mint when that is let through."""
        self.asked += 1
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        if self.faults:
            raise self.faults.pop()
        return await self.cluster.mint(spec)

    def fail_once(self, fault: Exception) -> None:
        """Let the next mint that is let through fail, and no other."""
        self.faults.append(fault)

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Never called by what hands out tokens."""
        raise AssertionError(spec)


class Audit(MemoryAudit):
    """Keeps refusals, too."""

    def __init__(self) -> None:
        super().__init__(Power())
        self.refusals: list[RefusedRequest] = []

    def refused(self, record: RefusedRequest) -> None:
        """Keep a record."""
        self.refusals.append(record)


def instances(**changes: object) -> Client:
    """Return a client one of whose grants is shared, and another one's each token handed out once."""
    shared = rotation.grant(vault=None, audiences=("a", "b"), reuse_seconds=REUSE)
    other = rotation.grant(name="other", vault=None, audiences=("a", "b"), reuse_seconds=REUSE)
    single = rotation.grant(name="single", vault=None)
    made = rotation.client(grants=(shared, other, single), proofs=Proofs(secret_digests=(bytes(32),)))
    return replace(made, **changes)  # type: ignore[arg-type]


class Storm:
    """One client whose grants are prepared, and an issuer."""

    def __init__(self) -> None:
        self.clock, self.registry, self.book = HandClock(), FakeRegistry(), GrantBook()
        self.cluster = FakeCluster(Power(), self.clock)
        self.mints, self.audit, self.metrics = HeldMints(self.cluster), Audit(), Metrics()
        self.limits, self.locked = NamespaceLimits(), True
        self.rules = replace(RULES, limits=self._limits)
        decider = Decider(registry=self.registry, rules=self.rules, clock=self.clock, locks=self)
        minter = GrantMinter(
            minter=self.mints,
            book=self.book,
            tokens=TokenAnchors(self.cluster, self.clock),
            recheck=lambda _: None,
        )
        self.shared = SharedTokens(minter=minter, decider=decider, clock=self.clock)
        self.issuer = Issuer(
            minter=minter,
            shared=self.shared,
            rates=ClientRates(self.rules, self.clock),
            audit=self.audit,
            metrics=self.metrics,
            clock=self.clock,
            rules=self.rules,
        )
        self.numbers = 0

    @classmethod
    async def of(cls, client: Client, *, held: bool = False) -> "Storm":
        """Return one whose client is served, and whose mints are let through unless they are to be held."""
        storm = cls()
        await storm.register(client)
        if not held:
            storm.mints.open.set()
        return storm

    async def register(self, client: Client) -> None:
        """Register a client, or change it, and prepare its grants."""
        self.registry.put(client)
        for grant in client.grants:
            anchor = await self.cluster.ensure(client, grant_anchor(client.uid, grant))
            self.book.put(client, Prepared(grant, anchor, ACCOUNT_UID))

    @property
    def client(self) -> Client:
        """The client as it is registered."""
        registration = self.registry.known[instances().id]
        assert registration.client is not None
        return registration.client

    def ask(self, client: Client | None = None, ask: Ask = DEFAULT, by: ProvedBy = BY_SECRET) -> "asyncio.Task[Issued]":
        """Ask for a token as one of the instances."""
        self.numbers += 1
        origin = Origin(f"request-{self.numbers}", "192.0.2.1", by)
        return asyncio.create_task(self.issuer.issue(client or self.client, ask, origin))

    async def waiting(self, *, mints: int = 1) -> None:
        """Let those who asked get as far as they can, and see that so many of them have asked the API server."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert self.mints.asked == mints

    def count(self, name: str, grant: str = "default") -> float | None:
        """Return a counter of the client's grant."""
        labels = {"namespace": self.client.id.namespace, "client": self.client.id.name, "grant": grant}
        return self.metrics.registry.get_sample_value(f"tokenbroker_{name}_total", labels)

    def _limits(self, _namespace: str) -> NamespaceLimits:
        return self.limits

    def require(self) -> None:
        """Stand for the canary. Raises BrokerError(policy_missing)."""
        if not self.locked:
            raise BrokerError(Reason.POLICY_MISSING, "the locks are not in force")


def jtis(records: list[Issuance]) -> set[str]:
    """Return which tokens were handed out."""
    return {record.jti for record in records}
