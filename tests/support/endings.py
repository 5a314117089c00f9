"""A cluster of hand-written fakes around all that makes and ends anchors, and power that can be cut."""

import asyncio
import re
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from broker.errors import BrokerError, Reason
from broker.metrics.counted import Metrics
from broker.model.account import account_user
from broker.model.anchor import AnchorId, grant_anchor, trial_anchor, vault_anchor
from broker.model.audit_record import Origin, RefusedRequest, Revoked
from broker.model.client import Client, ClientId, Grant, Revocation
from broker.model.decision import Ask, standing
from broker.model.limits import NamespaceLimits
from broker.model.proof_policy import ProofPolicy
from broker.model.sensitive import Sensitive
from broker.model.status import AccessFacts
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.model.vault_path import CopyKey
from broker.ports import LiveToken, Registration, Reviewed
from broker.services.anchored import AnchoredGrants
from broker.services.board import StatusBoard
from broker.services.courtesy import Turns
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook
from broker.services.introspect import Introspector
from broker.services.issue import Issuer
from broker.services.mint import GrantMinter
from broker.services.prepare import Hands, Preparer
from broker.services.reconcile import Reconciler
from broker.services.revoke import Revoker
from broker.services.rotation.rotate import Rotator
from broker.services.rotation.shown import ShownCopies
from broker.services.rush import Rush
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.decide_anew import Decider
from broker.services.storms.gated import GatedMinter
from broker.services.storms.shared_tokens import SharedTokens
from broker.services.token_anchors import TokenAnchors
from tests.support import rotation
from tests.support.fake_vault import FakeVault
from tests.support.gates import a_gate
from tests.support.processes import until
from tests.support.rotation import KEY, PLACE, RULES, FakeCluster, HandClock, MemoryAudit, Power, fake_rotator, grant

FINALIZER = "tokenbroker.dev/anchors"
WEB, OTHER = KEY.client, ClientId("shop", "other")
AWAY = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
FORBIDDEN = BrokerError(Reason.BROKER_NOT_AUTHORIZED, "no Role")
SINGLY, TOGETHER = "default", "together"
"""The grants of a client: one whose tokens are revoked one by one, and whose copy is in Vault; and one of Grant."""


@dataclass(slots=True)
class Resource:
    """A TokenClient in the cluster."""

    client: Client
    status: Mapping[str, Any] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deleting: bool = False
    version: int = 1


class EndingCluster(FakeCluster):
    """Has TokenClients with finalizers, and a garbage collector that knows them as owners.

    Implements also Registry, Finalizers, StatusWriter and AccessCheck. ``refused`` is what deleting an anchor meets,
    ``denied`` lists accounts that may do what they must not, and ``accounts`` says whose each token is.
    """

    def __init__(self, power: Power, clock: HandClock) -> None:
        super().__init__(power, clock)
        self.resources: dict[ClientId, Resource] = {}
        self.denied: set[str] = set()
        self.refused: dict[str, BrokerError] = {}
        self.unwritable = False
        self.accounts: dict[str, str] = {}
        self.account_uid = "account-1"

    def get(self, client_id: ClientId) -> Registration | None:
        """Return a TokenClient as a registry does that lags behind nothing."""
        it = self.resources.get(client_id)
        if it is None:
            return None
        known, version = it.client, str(it.version)
        return Registration(
            client_id, known.uid, known.generation, known, None, it.status, it.deleting, it.finalizers, version
        )

    def forget(self, client_id: ClientId) -> None:
        """Remember nothing of accounts."""

    def register(self, client: Client) -> None:
        """Make a TokenClient, or change its specification."""
        it = self.resources.setdefault(client.id, Resource(client))
        it.client, it.version = client, it.version + 1

    def delete_client(self, client_id: ClientId, *, orphan: bool = False) -> None:
        """Do what ``kubectl delete`` does."""
        it = self.resources[client_id]
        it.deleting, it.version = True, it.version + 1
        if orphan:
            self.parents = {below: above for below, above in self.parents.items() if above != it.client.uid}
        self._let_go(client_id)

    async def ensure(self, client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        """Make an anchor, below the TokenClient where no other one is above it."""
        return await super().ensure(client, which, parent or Anchor("", client.uid))

    async def delete(self, namespace: str, name: str, uid: str | None = None) -> bool:
        """Delete an anchor, unless that is refused."""
        if name in self.refused:
            raise self.refused[name]
        return await super().delete(namespace, name, uid)

    async def put(self, registration: Registration) -> Registration:
        """Put the finalizer on."""
        if FINALIZER in registration.finalizers:
            return registration
        return await self._finalize(registration, (*registration.finalizers, FINALIZER))

    async def release(self, registration: Registration) -> None:
        """Take the finalizer off."""
        if FINALIZER in registration.finalizers:
            await self._finalize(registration, ())

    async def write(self, registration: Registration, status: Mapping[str, Any]) -> bool:
        """Write a status, if the resource is as it was seen."""
        _require(not self.unwritable)
        self.power.before("status")
        it = self.resources.get(registration.id)
        seen = it is not None and (it.client.uid, str(it.version)) == (registration.uid, registration.resource_version)
        if it is not None and seen:
            it.status, it.version = status, it.version + 1
        self.power.after("status")
        return seen

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Try out a mint."""
        return await self.mint(spec)

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Mint, for the account that is there, and no other one of that name."""
        if spec.account_uid not in {"", self.account_uid}:
            raise BrokerError(Reason.ANCHOR_MISSING, "409: another account")
        minted = await super().mint(spec)
        self.accounts[minted.value.reveal()] = spec.service_account
        return replace(minted, account_uid=self.account_uid)

    def live(self, token: str) -> LiveToken | None:
        """Return what a token says that is accepted."""
        if token not in self.tokens or not self.accepts(token):
            return None
        uid, expires = self.tokens[token]
        (anchor,) = [name for name, its in self.anchors.items() if its == uid]
        subject = account_user(WEB.namespace, self.accounts[token])
        ends = int(expires.timestamp())
        return LiveToken("issuer", subject, RULES.api_audience, ends - 1, ends, f"jti-{token}", anchor)

    async def check(self, client: Client, grant: Grant, token: MintedToken) -> AccessFacts:
        """Look at an account."""
        del client, token
        if grant.service_account in self.denied:
            raise BrokerError(Reason.ACCESS_NOT_AS_DECLARED, "denied")
        return AccessFacts()

    def wait(self, client: Client, grants: Iterable[Grant]) -> float:
        """Let no look wait."""
        assert set(grants) <= set(client.grants)
        return 0.0

    def routine(self, client: Client, grant: Grant) -> bool:
        """Let every look be one."""
        return grant in client.grants

    async def quiet(self, seconds: float) -> None:
        """Let a caller be served, who has a request in flight whenever something looks again; power may fail."""
        assert seconds > 0
        self.power.before("stand back")
        await asyncio.sleep(0)

    def lately(self, seconds: float) -> bool:
        """Tell that callers come."""
        return seconds > 0

    def want(self, client_id: ClientId) -> None:
        """Let no look wait, whoever wants it."""

    async def record(self, registration: Registration, event_reason: str, note: str, *, warning: bool) -> None:
        """Keep no Events."""

    async def _finalize(self, registration: Registration, finalizers: tuple[str, ...]) -> Registration:
        self.power.before("finalizers")
        it = self.resources[registration.id]
        _require(str(it.version) == registration.resource_version)
        it.finalizers, it.version = finalizers, it.version + 1
        changed = replace(registration, finalizers=finalizers, resource_version=str(it.version))
        self._let_go(registration.id)
        self.power.after("finalizers")
        return changed

    def _let_go(self, client_id: ClientId) -> None:
        it = self.resources[client_id]
        if it.deleting and not it.finalizers:
            del self.resources[client_id]
            self._collect()

    def _collect(self) -> None:
        owners = {it.client.uid for it in self.resources.values()}
        while gone := [
            name
            for name, uid in self.anchors.items()
            if self.parents.get(uid, uid) not in {*self.anchors.values(), *owners}
        ]:
            for name in gone:
                del self.anchors[name]


class Audit(MemoryAudit):
    """An audit log that takes every kind of record; ``ended`` are those of tokens that were revoked."""

    def __init__(self, power: Power) -> None:
        super().__init__(power)
        self.ended: list[Revoked] = []

    def refused(self, record: RefusedRequest) -> None:
        """Keep nothing."""

    def revoked(self, record: Revoked) -> None:
        """Keep a record."""
        self.ended.append(record)


class Reviews:
    """Implements Reviewer: knows the tokens that the cluster accepts."""

    def __init__(self, cluster: EndingCluster) -> None:
        self._cluster = cluster

    async def inspect(self, token: Sensitive) -> LiveToken | None:
        """Return what a token says, if its anchor is there."""
        value = token.reveal()
        self._cluster.power.before("review")
        live = self._cluster.live(value)
        self._cluster.power.after("review")
        return live

    async def review(self, token: str, audience: str) -> Reviewed | None:
        """Know no token of a caller."""
        del token, audience
        return None


class EndingWorld:
    """What outlives a broker, and a broker that can be started again without memory."""

    def __init__(self) -> None:
        self.power, self.clock = Power(), HandClock()
        self.cluster = EndingCluster(self.power, self.clock)
        self.vault = FakeVault(self.power.before, self.power.after)
        self.audit = Audit(self.power)
        self.keys: set[CopyKey] = set()
        self.labels_known, self.limits = True, NamespaceLimits()
        self.rules = replace(RULES, limits=self._limits)
        self.restart()

    def restart(self) -> None:
        """Start a broker that remembers nothing."""
        self.power.cut_at, self.power.calls = None, []
        self.metrics, self.book, self.anchored = Metrics(), GrantBook(), AnchoredGrants()
        self.board = self._board()
        self.tokens = TokenAnchors(self.cluster, self.clock)
        self.rechecked = list[ClientId]()
        self.ender = Ender(
            self.cluster,
            self.audit,
            self.clock,
            self.metrics,
            lambda: "request",
            anchored=self.anchored,
            leader=self.cluster,
        )
        self.rotator = self._rotator()
        self.reconciler = self._reconciler()
        minter = GrantMinter(minter=self.cluster, book=self.book, tokens=self.tokens, recheck=self.rechecked.append)
        decider = Decider(registry=self.cluster, rules=self.rules, clock=self.clock, locks=None)
        gate = self.gate = a_gate(self.clock)
        gated = GatedMinter(minter, gate, decider)
        self.shared = SharedTokens(minter=gated, decider=decider, clock=self.clock)
        self.issuer = Issuer(
            minter=gated,
            shared=self.shared,
            rates=ClientRates(self.rules, self.clock),
            audit=self.audit,
            metrics=self.metrics,
            clock=self.clock,
            rules=self.rules,
        )
        self.revoker = Revoker(
            tokens=self.tokens,
            introspector=Introspector(Reviews(self.cluster), gate),
            gate=gate,
            audit=self.audit,
            metrics=self.metrics,
            clock=self.clock,
        )

    def register(self, client: Client) -> None:
        """Make a TokenClient, or change it."""
        self.cluster.register(client)
        self.keys |= {CopyKey(client.id, grant.name) for grant in client.grants}

    def change(self, **changes: object) -> None:
        """Change the client, and let the broker hear of it, but not visit it yet."""
        self.register(web(generation=self.cluster.resources[WEB].client.generation + 1, **changes))
        self.reconciler.changed(WEB)
        self.rotator.changed(WEB)

    async def settle(self) -> None:
        """Let the broker visit everything until nothing is left to do; what fails is tried again.

        Raises BrokerError where something fails once more that the test did not let fail.
        """
        await self._round(bears=set(Reason))
        await self._round(bears=self._injected())

    async def _round(self, bears: set[Reason]) -> None:
        for client_id in {key.client for key in self.keys}:
            await _unless(bears, self.reconciler.visit(client_id))
            await _unless(bears, self.board.write(client_id))
        for key in sorted(self.keys, key=str):
            await _unless(bears, self.rotator.visit(key))

    def _injected(self) -> set[Reason]:
        """Return with what visits must fail: what the test lets calls meet, and what it lets them find."""
        injected = (self.cluster.delete_fault, self.audit.fault, *self.cluster.refused.values())
        faults = {fault.reason for fault in injected if isinstance(fault, BrokerError)}
        faults |= {Reason.ACCESS_NOT_AS_DECLARED} if self.cluster.denied else set()
        faults |= set() if self.labels_known else {Reason.REGISTRY_STALE}
        return faults | (set() if self.cluster.leading else {Reason.ANCHOR_MISSING})

    async def issue(self, client_id: ClientId = WEB, grant_name: str = SINGLY) -> tuple[str, str]:
        """Hand a token out, and return its id and the token."""
        client = self.cluster.resources[client_id].client
        issued = await self.issuer.issue(client, Ask(grant_name, None, None), Origin("r"))
        return issued.id, issued.token.value.reveal()

    async def revoke_all(self, *, now: bool) -> None:
        """Do what ``tokenbroker client revoke-all`` does."""
        it = self.cluster.resources[WEB]
        for one in it.client.grants:
            tops = [grant_anchor(it.client.uid, one), *([vault_anchor(it.client.uid, one)] if now else [])]
            for top in tops:
                self.cluster.anchors.pop(top.name, None)
        self.cluster._collect()
        asked = self.clock.moment.replace(microsecond=0) + timedelta(seconds=1)
        self.cluster.register(replace(it.client, rotate_requested=asked))
        self.clock.pass_(2)

    def in_vault(self, key: CopyKey = KEY) -> str | None:
        """Return the token that readers of Vault get."""
        entry = self.vault.entries.get(PLACE.path(key))
        value = entry.versions[-1]["token"] if entry and entry.versions and entry.versions[-1] else None
        return value.reveal() if isinstance(value, Sensitive) else None

    async def until_abandoned(self) -> None:
        """Let the broker end what it has given up."""
        running = asyncio.create_task(self.tokens.queue.run())

        async def nothing_left() -> bool:
            return len(self.tokens.queue) == 0

        await until(nothing_left, what="abandoned tokens have ended")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def anchor_name(self, uid: str) -> str:
        """Return the name of an anchor that is there."""
        return next((name for name, its in self.cluster.anchors.items() if its == uid), "")

    def buckets(self) -> list[str]:
        """Return the names of the buckets."""
        return [name for name in self.cluster.anchors if re.search(r"-b\d+$", name)]

    def accepts(self, token: str) -> bool:
        """Tell whether the API server would accept a token."""
        return self.cluster.accepts(token)

    def orphans(self) -> float:
        """Return what the gauge says of all clients."""
        metrics = self.metrics.registry.collect()
        return sum(
            sample.value for it in metrics for sample in it.samples if sample.name == "tokenbroker_orphaned_grants"
        )

    def tops(self) -> set[str]:
        """Return the anchors at the top."""
        return {name for name in self.cluster.anchors if name.count("-") == 2}

    def wanted(self) -> set[str]:
        """Return the anchors that should be at the top: of clients that may have tokens."""
        names: set[str] = set()
        for it in self.cluster.resources.values():
            if not it.deleting and standing(it.client, self.clock.now()) is None:
                names |= {which.name for one in it.client.grants for which in _tops(it.client, one)}
        return names

    def _board(self) -> StatusBoard:
        return StatusBoard(
            registry=self.cluster,
            writer=self.cluster,
            events=self.cluster,
            clock=self.clock,
            metrics=self.metrics,
            leader=self.cluster,
            rush=Rush(self.clock),
            proofs=lambda namespace: ProofPolicy(kinds=self._limits(namespace).proofs),
        )

    def _reconciler(self) -> Reconciler:
        hands = Hands(
            turns=Turns(self.cluster),
            anchors=self.cluster,
            minter=self.cluster,
            access=self.cluster,
            ender=self.ender,
            anchored=self.anchored,
            tokens=self.tokens,
            leader=self.cluster,
        )
        return Reconciler(
            registry=self.cluster,
            preparer=Preparer(hands, self.book, self.rules),
            ender=self.ender,
            finalizers=self.cluster,
            book=self.book,
            tokens=self.tokens,
            board=self.board,
            leader=self.cluster,
            clock=self.clock,
            prepared=self.rotator.prepared,
            anchored=self.anchored,
        )

    def _rotator(self) -> Rotator:
        return fake_rotator(
            registry=self.cluster,
            cluster=self.cluster,
            vault=self.vault,
            audit=self.audit,
            clock=self.clock,
            book=self.book,
            shown=ShownCopies(self.board, PLACE, self.metrics.vault, self.cluster),
            recheck=self.rechecked.append,
            rules=self.rules,
        )

    def _limits(self, _namespace: str) -> NamespaceLimits:
        if not self.labels_known:
            raise BrokerError(Reason.REGISTRY_STALE, "labels")
        return self.limits


def web(**changes: object) -> Client:
    """Return a client with both kinds of grants."""
    both = (grant(revocation=Revocation.TOKEN), grant(name=TOGETHER, vault=None))
    return replace(rotation.client(grants=both), **changes)  # type: ignore[arg-type]


def handed_out(name: str) -> str:
    """Return the name of the anchor of what is handed out for a grant of that client."""
    found = web().grant(name)
    assert found is not None
    return grant_anchor("uid-1", found).name


def other() -> Client:
    """Return another client of the same namespace."""
    return web(id=OTHER, uid="uid-of-other")


def _tops(client: Client, one: Grant) -> list[AnchorId]:
    tops = [trial_anchor(client.uid, one)]
    tops += [] if one.revocation is Revocation.NONE else [grant_anchor(client.uid, one)]
    return [*tops, *([vault_anchor(client.uid, one)] if one.vault else [])]


async def _unless(bears: set[Reason], work: Awaitable[object]) -> None:
    try:
        await work
    except BrokerError as error:
        if error.reason not in bears:
            raise


def _require(condition: bool) -> None:  # noqa: FBT001 - one thing
    if not condition:
        raise BrokerError(Reason.KUBERNETES_UNAVAILABLE, "it has changed")
