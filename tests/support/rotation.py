"""A world of hand-written fakes around the Rotator: registry, cluster, Vault, clock, and crashes."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import AnchorId
from broker.model.audit_record import Issuance, RefusedRequest, Revoked
from broker.model.client import Client, ClientId, Grant, Proofs, TtlRange, VaultCopy
from broker.model.cluster import ClusterInfo
from broker.model.decision import Rules
from broker.model.prepared import Prepared
from broker.model.sensitive import Sensitive
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.model.vault_path import CopyKey, VaultPlace
from broker.model.vault_status import VaultFacts
from broker.ports import AuditLog, Clock, Minter, Registration, Registry, VaultStore
from broker.services.grant_book import GrantBook
from broker.services.mint import GrantMinter
from broker.services.rotation.current import CurrentCopies
from broker.services.rotation.left_anchors import LeftAnchors
from broker.services.rotation.outage import Outage, Reach
from broker.services.rotation.root import VaultRoots
from broker.services.rotation.rotate import Rotator
from broker.services.rotation.shown import ShownCopies
from broker.services.rotation.sweep import Sweeper
from broker.services.rotation.wanted import Wanted
from broker.services.rotation.write import CopyWriter
from broker.services.token_anchors import TokenAnchors
from tests.support.fake_vault import FakeVault

CLUSTER = ClusterInfo("prod", "https://api.prod.example", "-----BEGIN CERTIFICATE-----\n")
PLACE = VaultPlace("secret", "tokenbroker", CLUSTER.name, CLUSTER.server)
RULES = Rules("tokenbroker", "https://kubernetes.default.svc")
KEY = CopyKey(ClientId("shop", "reporter"), "default")
TTL, RENEW_BEFORE = 12 * 3600, 4 * 3600


class PowerCut(Exception):  # noqa: N818 - what it stands for
    """The broker's process ended here."""


class Power:
    """Cuts the power before or after the n-th call to the outside, counting from 0."""

    def __init__(self) -> None:
        self.cut_at: int | None = None
        self.after_effect = False
        self.calls: list[str] = []

    def before(self, call: str) -> None:
        """Count a call."""
        self.calls.append(call)
        self._maybe_cut(after=False)

    def after(self, call: str) -> None:
        """Note that a call had its effect."""
        del call
        self._maybe_cut(after=True)

    def _maybe_cut(self, *, after: bool) -> None:
        if self.cut_at == len(self.calls) - 1 and self.after_effect is after:
            raise PowerCut


@dataclass
class HandClock:
    """A clock that moves when it is told to."""

    moment: datetime = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the time."""
        return self.moment

    def monotonic(self) -> float:
        """Return the time as seconds."""
        return self.moment.timestamp()

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)


class FakeRegistry:
    """Implements :class:`broker.ports.Registry`."""

    def __init__(self) -> None:
        self.known: dict[ClientId, Registration] = {}
        self.stale = False
        self.book = GrantBook()
        """Every grant of a registered client may be issued for, until a test says otherwise."""

    def get(self, client_id: ClientId) -> Registration | None:
        """Return a registration, unless the memory is stale."""
        if self.stale:
            raise BrokerError(Reason.REGISTRY_STALE, "stale")
        return self.known.get(client_id)

    def registrations(self) -> list[Registration]:
        """Return all of them."""
        return list(self.known.values())

    def put(self, client: Client) -> None:
        """Register a client, or change it."""
        self.known[client.id] = Registration(client.id, client.uid, client.generation, client, None, {})
        for one in client.grants:
            self.book.put(client, Prepared(one, Anchor("grant", "grant"), ""))

    def invalidate(self, client_id: ClientId) -> None:
        """Let a client's specification become unreadable."""
        fault = Fault(Reason.INVALID_REQUEST, "spec: no")
        self.known[client_id] = replace(self.known[client_id], client=None, fault=fault)


@dataclass
class FakeCluster:
    """Implements Minter, Anchors and Leader: a token works while its anchor is there and its time is not over.

    ``anchors`` maps names to UIDs, ``parents`` UIDs to those of the anchors above them.
    """

    power: Power
    clock: HandClock
    leading: bool = True
    anchors: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    longest_seconds: int = 10**9
    delete_fault: BrokerError | None = None
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def versions(self) -> list[str]:
        """Return the names of the anchors of versions."""
        return [name for name in self.anchors if name.rpartition("-")[2].startswith("v")]

    async def ensure(self, client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        """Make an anchor, or return the one that is there."""
        assert client.id.namespace == KEY.client.namespace
        self.power.before("ensure")
        uid = self.anchors.setdefault(which.name, f"{next(self._numbers):08}-anchor")
        if parent is not None:
            self.parents.setdefault(uid, parent.uid)
            self._collect()
        self.power.after("ensure")
        return Anchor(which.name, uid)

    async def find(self, client: Client, which: AnchorId) -> Anchor | None:
        """Return an anchor that is there."""
        assert client.id.namespace == KEY.client.namespace
        self.power.before("find")
        uid = self.anchors.get(which.name)
        self.power.after("find")
        return None if uid is None else Anchor(which.name, uid)

    async def delete(self, namespace: str, name: str, uid: str | None = None) -> bool:
        """Delete an anchor, and those below it."""
        assert namespace == KEY.client.namespace
        self.power.before("delete")
        if self.delete_fault is not None:
            raise self.delete_fault
        there = name in self.anchors and uid in {None, self.anchors[name]}
        if there:
            del self.anchors[name]
            self._collect()
        self.power.after("delete")
        return there

    def _collect(self) -> None:
        """Do what the garbage collector does."""
        while orphans := [
            name for name, uid in self.anchors.items() if self.parents.get(uid, uid) not in self.anchors.values()
        ]:
            for name in orphans:
                del self.anchors[name]

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Mint a token for an anchor that exists."""
        self.power.before("mint")
        if spec.anchor is None or spec.anchor.uid not in self.anchors.values():
            raise BrokerError(Reason.ANCHOR_MISSING, "gone")
        now, value = self.clock.now(), f"token-{next(self._numbers)}"
        expires = now + timedelta(seconds=min(spec.ttl_seconds, self.longest_seconds))
        self.tokens[value] = (spec.anchor.uid, expires)
        self.power.after("mint")
        return MintedToken(Sensitive(value), f"jti-{value}", now, expires, f"sha256-of-{value}")

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Never called by the rotation."""
        raise AssertionError(spec)

    def accepts(self, token: str) -> bool:
        """Tell whether the API server would accept a token now."""
        uid, expires = self.tokens[token]
        return uid in self.anchors.values() and self.clock.now() < expires


class MemoryAudit:
    """Implements AuditLog."""

    def __init__(self, power: Power) -> None:
        self.records: list[Issuance] = []
        self.fault: BaseException | None = None
        self._power = power

    def issued(self, record: Issuance) -> None:
        """Keep a record."""
        self._power.before("audit")
        if self.fault is not None:
            raise self.fault
        self.records.append(record)
        self._power.after("audit")

    def refused(self, record: RefusedRequest) -> None:
        """Never called by the rotation."""
        raise AssertionError(record)

    def revoked(self, record: Revoked) -> None:
        """Never called by the rotation."""
        raise AssertionError(record)


class NoAudit:
    """Implements AuditLog: keeps nothing."""

    def issued(self, record: Issuance) -> None:
        """Keep nothing."""

    def refused(self, record: RefusedRequest) -> None:
        """Keep nothing."""

    def revoked(self, record: Revoked) -> None:
        """Keep nothing."""


class Watcher:
    """Stands for the board and the metrics: keeps the last facts and every outcome."""

    def __init__(self) -> None:
        self.facts: dict[CopyKey, VaultFacts | None] = {}
        self.outcomes: list[str] = []
        self.expiry: dict[CopyKey, float] = {}
        self.renewal: dict[CopyKey, float] = {}

    def vault(self, client_id: ClientId, grant: str, facts: VaultFacts | None) -> None:
        """Keep facts."""
        self.facts[CopyKey(client_id, grant)] = facts

    def vault_written(self, client: ClientId, grant: str, outcome: str) -> None:
        """Keep an outcome."""
        del client, grant
        self.outcomes.append(outcome)

    def vault_times(self, client: ClientId, grant: str, *, expiry: float, renewal: float) -> None:
        """Keep both."""
        self.expiry[CopyKey(client, grant)] = expiry
        self.renewal[CopyKey(client, grant)] = renewal

    def vault_removed(self, client: ClientId, grant: str) -> None:
        """Drop an expiry."""
        self.expiry.pop(CopyKey(client, grant), None)

    def nothing_in_vault(self) -> None:
        """Drop all expiries."""
        self.expiry.clear()


class FakeReach:
    """Implements Reach: Vault is there until a test says otherwise."""

    def __init__(self) -> None:
        self.away: BrokerError | None = None
        self.doubts = 0

    def doubt(self) -> None:
        """Count it."""
        self.doubts += 1


def fake_rotator(
    *,
    registry: Registry,
    cluster: FakeCluster,
    vault: VaultStore,
    audit: AuditLog,
    clock: Clock,
    book: GrantBook,
    shown: ShownCopies,
    recheck: Callable[[ClientId], None] | None = None,
    rules: Rules = RULES,
    minter: Minter | None = None,
    reach: Reach | None = None,
) -> Rotator:
    """Return a rotator that remembers nothing, in a cluster whose one broker leads, and mints unless told otherwise."""
    tokens, told = TokenAnchors(cluster, clock), recheck or (lambda _: None)
    granted = GrantMinter(minter=minter or cluster, book=book, tokens=tokens, recheck=told)
    writer = CopyWriter(
        store=vault, anchors=cluster, minter=granted, audit=audit, clock=clock, cluster=CLUSTER, place=PLACE
    )
    reach = reach or FakeReach()
    numbers, wanted = itertools.count(), Wanted(registry, rules, PLACE)
    current = CurrentCopies(
        writer=writer,
        roots=VaultRoots(registry=registry, anchors=cluster, book=book, leader=cluster, clock=clock),
        left=LeftAnchors(wanted=wanted, reach=reach, store=vault, anchors=cluster, place=PLACE),
        shown=shown,
        book=book,
        rules=rules,
        clock=clock,
        new_request_id=lambda: f"request-{next(numbers)}",
    )
    return Rotator(
        registry=registry,
        wanted=wanted,
        store=vault,
        writer=writer,
        current=current,
        shown=shown,
        outage=Outage(reach),
        leader=cluster,
        place=PLACE,
        clock=clock,
    )


class World:
    """Everything that outlives the broker, and the broker, which can be started again."""

    def __init__(self) -> None:
        self.power = Power()
        self.clock = HandClock()
        self.registry = FakeRegistry()
        self.cluster = FakeCluster(self.power, self.clock)
        self.vault = FakeVault(self.power.before, self._after_vault)
        self.audit = MemoryAudit(self.power)
        self.watcher = Watcher()
        self.reads: list[tuple[datetime, str]] = []
        self.reach = FakeReach()
        self.rotator = self.restart()

    def sweeper(self, hand_over: Callable[[CopyKey], None]) -> Sweeper:
        """Return a sweeper of its Vault."""
        unwanted = self.rotator._wanted.nowhere
        return Sweeper(store=self.vault, place=PLACE, unwanted=unwanted, hand_over=hand_over, leader=self.cluster)

    def restart(self, rules: Rules = RULES, store: VaultStore | None = None) -> Rotator:
        """Start a broker that remembers nothing."""
        self.power.cut_at, self.power.calls = None, []
        self.watcher = Watcher()
        self.rotator = fake_rotator(
            registry=self.registry,
            cluster=self.cluster,
            vault=store or self.vault,
            audit=self.audit,
            clock=self.clock,
            book=self.registry.book,
            shown=ShownCopies(self.watcher, PLACE, self.watcher, self.cluster),
            rules=rules,
            reach=self.reach,
        )
        return self.rotator

    async def visit(self, key: CopyKey = KEY) -> float | None:
        """Let the broker visit a copy."""
        return await self.rotator.visit(key)

    def facts(self, key: CopyKey = KEY) -> VaultFacts:
        """Return what the broker shows of a copy."""
        facts = self.watcher.facts[key]
        assert facts is not None
        return facts

    def token(self, key: CopyKey = KEY) -> str | None:
        """Return what a reader of Vault gets now, if it is a token of the broker's."""
        entry = self.vault.entries.get(PLACE.path(key))
        data = entry.versions[-1] if entry and entry.versions else None
        value = data.get("token") if data else None
        return value.reveal() if isinstance(value, Sensitive) else None

    def broken_readers(self) -> list[str]:
        """Return tokens that a reader still holds, read no longer ago than it may be, and that do not work.

        A token whose time is over is left out: the rotation could not be done in time.
        """
        polled = self.clock.now() - timedelta(seconds=RENEW_BEFORE)
        held = {token for until, token in self.reads if until >= polled} | {self.token() or ""} - {""}
        ended = {token for token in held if self.cluster.tokens[token][1] <= self.clock.now()}
        return [token for token in held - ended if not self.cluster.accepts(token)]

    def _after_vault(self, call: str) -> None:
        token = self.token()
        if token is not None:  # somebody reads it right now
            self.reads.append((self.clock.now(), token))
        self.power.after(call)


def client(**changes: object) -> Client:
    """Return a client with one grant that is kept in Vault."""
    plain = Client(
        id=KEY.client,
        uid="uid-1",
        generation=1,
        owner="",
        not_after=None,
        suspended=False,
        proofs=Proofs(),
        grants=(grant(),),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def grant(**changes: object) -> Grant:
    """Return a grant that is kept in Vault."""
    plain = Grant("default", "reporter", (), TtlRange(900, 3600), VaultCopy(TTL, RENEW_BEFORE))
    return replace(plain, **changes)  # type: ignore[arg-type]
