"""Joins what keeps copies in Vault."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from broker.clock import SystemClock
from broker.config import Config, VaultConfig
from broker.endpoints import cluster_info
from broker.metrics.counted import Metrics
from broker.model.decision import Rules
from broker.model.vault_path import VaultPlace
from broker.ports import Anchors, AuditLog, Clock, Leader, LiveRegistry, VaultStore
from broker.services.board import StatusBoard
from broker.services.courtesy import Callers, Turns
from broker.services.grant_book import GrantBook
from broker.services.mint import GrantMinter
from broker.services.rotation.behind_callers import CourteousMinter, CourteousStore
from broker.services.rotation.current import CurrentCopies
from broker.services.rotation.left_anchors import LeftAnchors
from broker.services.rotation.outage import Outage, Reach
from broker.services.rotation.pulse import VaultPulse
from broker.services.rotation.root import VaultRoots
from broker.services.rotation.rotate import Rotator
from broker.services.rotation.shown import ShownCopies
from broker.services.rotation.sweep import Sweeper
from broker.services.rotation.wanted import Wanted
from broker.services.rotation.write import CopyWriter
from broker.services.rush import Rush
from broker.vault.login import VaultLogin
from broker.vault.store import KvStore
from broker.vault.transport import VaultTransport


@asynccontextmanager
async def vault_store(vault: VaultConfig, metrics: Metrics) -> AsyncIterator[KvStore]:
    """Connect to Vault as the configuration says."""
    clock = SystemClock()
    async with (
        VaultTransport(vault.address, vault.ca_file, vault.timeout_seconds) as transport,
        VaultLogin(
            transport,
            mount=vault.auth_mount,
            role=vault.auth_role,
            token_file=vault.token_file,
            clock=clock,
            metrics=metrics.vault,
        ) as login,
    ):
        yield KvStore(login.call, vault.mount, clock)


def pulse(config: Config, store: VaultStore, clock: Clock, metrics: Metrics) -> VaultPulse:
    """Return what knows whether Vault is in reach."""
    return VaultPulse(store=store, place=_place(config), clock=clock, metrics=metrics.vault)


@dataclass(frozen=True, slots=True)
class Around:
    """What copies are made with."""

    config: Config
    registry: LiveRegistry
    store: VaultStore
    reach: Reach
    anchors: Anchors
    minter: GrantMinter
    callers: Callers
    book: GrantBook
    leader: Leader
    board: StatusBoard
    audit: AuditLog
    metrics: Metrics
    clock: Clock
    rules: Rules


@dataclass(frozen=True, slots=True)
class Copies:
    """What keeps them."""

    rotator: Rotator
    sweeper: Sweeper
    left: LeftAnchors

    @property
    def jobs(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """What goes on for them, by name."""
        return {
            "rotate": self.rotator.queue.run,
            "sweep": self.sweeper.queue.run,
            "left-anchors": self.left.queue.run,
        }

    def led(self, *, leading: bool) -> None:
        """Take note that this replica leads from now on, and so knows who is registered, or leads no more."""
        if leading:
            self.rotator.lead()
            self.sweeper.lead()
        else:
            self.rotator.stand_back()


def keep_copies(around: Around, rush: Rush, new_request_id: Callable[[], str]) -> Copies:
    """Return what keeps copies current, and tidies up after them; ``rush`` goes by how late that is."""
    place = _place(around.config)
    wanted = Wanted(around.registry, around.rules, place)
    turns = Turns(around.callers)
    store = CourteousStore(around.store, turns)
    left = LeftAnchors(wanted=wanted, reach=around.reach, store=store, anchors=around.anchors, place=place)
    writer = _writer(around, store, turns, place)
    roots = VaultRoots(
        registry=around.registry, anchors=around.anchors, book=around.book, leader=around.leader, clock=around.clock
    )
    shown = ShownCopies(around.board, place, around.metrics.vault, around.leader)
    current = CurrentCopies(
        writer=writer,
        roots=roots,
        left=left,
        shown=shown,
        book=around.book,
        rules=around.rules,
        clock=around.clock,
        new_request_id=new_request_id,
    )
    rotator = Rotator(
        registry=around.registry,
        wanted=wanted,
        store=store,
        writer=writer,
        current=current,
        shown=shown,
        outage=Outage(around.reach),
        leader=around.leader,
        place=place,
        clock=around.clock,
    )
    rush.late = turns.late = rotator.queue.overdue
    return Copies(rotator, _sweeper(around, wanted, rotator, place), left)


def _sweeper(around: Around, wanted: Wanted, rotator: Rotator, place: VaultPlace) -> Sweeper:
    return Sweeper(
        store=around.store,
        place=place,
        unwanted=wanted.nowhere,
        hand_over=rotator.queue.add,
        leader=around.leader,
    )


def _writer(around: Around, store: VaultStore, turns: Turns, place: VaultPlace) -> CopyWriter:
    return CopyWriter(
        store=store,
        anchors=around.anchors,
        minter=CourteousMinter(around.minter, turns),
        audit=around.audit,
        clock=around.clock,
        cluster=cluster_info(around.config),
        place=place,
    )


def _place(config: Config) -> VaultPlace:
    if config.vault is None:
        raise RuntimeError("there is no place in Vault without a Vault")
    return VaultPlace(config.vault.mount, config.vault.prefix, config.cluster.name, config.cluster.server)
