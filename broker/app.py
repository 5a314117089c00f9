"""The one place where the parts are made and joined."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from broker.config import Config
from broker.copies import Around, Copies, keep_copies
from broker.endpoints import api, new_request_id
from broker.http.ops import OpsEndpoint, ops_router
from broker.http.problems import malformed, turned_away
from broker.http.protocol import HungUp, Malformed
from broker.http.router import Router
from broker.kube.access import KubeAccess
from broker.kube.finalizers import KubeFinalizers
from broker.metrics.scraped import Scraped
from broker.model.client import ClientId
from broker.model.proof_policy import ProofPolicy
from broker.observing import not_ready, observe
from broker.parts import Parts, made
from broker.services.anchored import AnchoredGrants
from broker.services.board import StatusBoard
from broker.services.courtesy import Turns
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook
from broker.services.lead_news import LeadNews
from broker.services.leadership import Own
from broker.services.mint import GrantMinter
from broker.services.near_misses import NearMisses
from broker.services.prepare import PATIENCE_SECONDS, Hands, Preparer
from broker.services.reconcile import Reconciler
from broker.services.rush import Rush
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.gate import Shed
from broker.services.storms.gated import GatedMinter
from broker.services.storms.shared_tokens import SharedTokens
from broker.services.token_anchors import TokenAnchors
from broker.services.verify import Verifier
from broker.services.workqueue import WorkQueue
from broker.serving import Shared, services
from broker.startup import Job, leading, looking


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker made ready to run: what answers on its two listeners, and what goes on beside them.

    ``malformed`` answers no-HTTP, ``turned_away`` those for whom there is no room; ``hung_up`` hears of those who went.
    ``leave`` makes it not ready for good, before it ends. ``scraped`` is for what only the sockets know.
    """

    api: Router
    ops: Router
    malformed: Malformed
    turned_away: Callable[[], bytes]
    hung_up: HungUp
    jobs: dict[str, Job]
    leave: Callable[[], None]
    scraped: Scraped


@asynccontextmanager
async def broker(config: Config) -> AsyncIterator[Broker]:
    """Make a broker from the configuration, and close what has to be closed."""
    async with made(config) as parts:
        yield _joined(parts)


def _joined(parts: Parts) -> Broker:
    def recheck(client_id: ClientId) -> None:
        reconciler.recheck(client_id)

    book, rush = GrantBook(), Rush(parts.clock)
    board = _board(parts, rush)
    tokens = TokenAnchors(parts.clients.anchors, parts.clock)
    minter = GrantMinter(minter=parts.minter, book=book, tokens=tokens, recheck=recheck)
    around = _around(parts, minter, book, board)
    kept = keep_copies(around, rush, new_request_id) if around else None
    gated = GatedMinter(minter, parts.gate, parts.decider)
    reused = SharedTokens(minter=gated, decider=parts.decider, clock=parts.clock)
    shared = Shared(
        book, board, tokens, gated, reused, kept.rotator if kept else None, ClientRates(parts.rules, parts.clock)
    )
    reconciler = _reconciler(parts, shared, rush)
    near_misses = NearMisses(parts.clients.registry, parts.clients.events)
    news = LeadNews(parts.clients.lead) if parts.clients.lead is not None else None
    _follow(parts, shared, kept, reconciler, news)
    endpoint = OpsEndpoint(parts.metrics.registry, lambda: not_ready(parts, reconciler.first))
    return Broker(
        api=api(
            parts.config,
            services(parts, shared, near_misses),
            rules=parts.rules,
            clock=parts.time,
            metrics=parts.metrics,
            new_request_id=new_request_id,
        ),
        ops=ops_router(endpoint),
        malformed=malformed(new_request_id, parts.metrics),
        turned_away=turned_away(new_request_id, parts.metrics, lambda: parts.metrics.waits.shed(Shed.CONNECTIONS)),
        hung_up=lambda who: _hung_up(parts, who),
        jobs=_jobs(parts, shared, reconciler, near_misses)
        | (kept.jobs if kept is not None else {})
        | ({"lead-events": news.queue.run} if news is not None else {}),
        leave=endpoint.leave,
        scraped=observe(parts, reconciler.first, _queues(shared, reconciler, near_misses, news, kept)),
    )


def _hung_up(parts: Parts, who: object) -> None:
    for gate in (parts.gate, parts.deliveries):
        gate.hung_up(who)


def _queues(
    shared: Shared, reconciler: Reconciler, near_misses: NearMisses, news: LeadNews | None, kept: Copies | None
) -> Iterator[WorkQueue[Any]]:
    owners = (reconciler, shared.board, near_misses, shared.tokens, news)
    copies = (kept.rotator, kept.sweeper, kept.left) if kept is not None else ()
    yield from (owner.queue for owner in (*owners, *copies) if owner is not None)


def _jobs(parts: Parts, shared: Shared, reconciler: Reconciler, near_misses: NearMisses) -> dict[str, Job]:
    jobs: dict[str, Job] = {
        "credentials": parts.session.refresh_forever,
        "lease": leading(parts, reconciler),
        "registry": parts.clients.registry.run,
        "reconcile": looking(parts, reconciler),
        "status": shared.board.queue.run,
        "near-misses": near_misses.queue.run,
        "abandoned-tokens": shared.tokens.queue.run,
    }
    if parts.namespaces is not None:
        jobs["namespaces"] = parts.namespaces.run
    if parts.canary is not None:
        jobs["canary"] = parts.canary.run
    if parts.pulse is not None:
        jobs["vault-pulse"] = parts.pulse.run
    return jobs


def _reconciler(parts: Parts, shared: Shared, rush: Rush) -> Reconciler:
    anchored = AnchoredGrants()
    ender = Ender(
        parts.clients.anchors,
        parts.audit,
        parts.clock,
        parts.metrics,
        new_request_id,
        anchored=anchored,
        leader=parts.leadership,
    )
    turns = Turns(parts.gate, patience=PATIENCE_SECONDS)
    hands = Hands(
        turns=turns,
        anchors=parts.clients.anchors,
        minter=parts.minter,
        access=Verifier(KubeAccess(parts.session), parts.rules, parts.clock, rush),
        ender=ender,
        anchored=anchored,
        tokens=shared.tokens,
        leader=parts.leadership,
    )
    reconciler = Reconciler(
        registry=parts.clients.registry,
        preparer=Preparer(hands, shared.book, parts.rules),
        ender=ender,
        finalizers=KubeFinalizers(parts.session, parts.clients.registry.written),
        book=shared.book,
        tokens=shared.tokens,
        board=shared.board,
        leader=parts.leadership,
        clock=parts.time,
        prepared=shared.keeper.prepared if shared.keeper is not None else _nobody_waits,
        anchored=anchored,
    )
    turns.late, turns.pressing = reconciler.queue.overdue, reconciler.queue.pressing
    return reconciler


def _nobody_waits(_client_id: ClientId, _grant: str) -> None:
    """Serve where nothing is kept in Vault."""


def _follow(parts: Parts, shared: Shared, kept: Copies | None, reconciler: Reconciler, news: LeadNews | None) -> None:
    """Let them follow the registry, and whether this replica leads."""

    def changed(client_id: ClientId) -> None:
        shared.reused.changed(client_id)
        shared.board.changed(client_id)
        reconciler.changed(client_id)
        if parts.clients.registry.get(client_id) is None:
            shared.rates.forget(client_id)
        if kept is not None:
            kept.rotator.changed(client_id)

    def led(leading: bool) -> None:  # noqa: FBT001 - told, not asked
        if leading:
            reconciler.lead()
        else:
            reconciler.stand_back()
        if kept is not None:
            kept.led(leading=leading)
        if news is not None:
            news.changed(leading=leading)

    parts.clients.registry.on_change = changed
    if parts.namespaces is not None:
        parts.namespaces.on_change = reconciler.namespace_changed
    parts.leadership.on_change = led
    if parts.pulse is not None and kept is not None:
        parts.pulse.lost = kept.rotator.revisit
        parts.pulse.back = kept.rotator.reached_again


def _board(parts: Parts, rush: Rush) -> StatusBoard:
    def proofs(namespace: str) -> ProofPolicy:
        return replace(parts.checks.policy, kinds=parts.rules.limits(namespace).proofs)

    return StatusBoard(
        registry=parts.clients.registry,
        writer=parts.clients.statuses,
        events=parts.clients.events,
        clock=parts.time,
        metrics=parts.metrics,
        proofs=proofs,
        leader=parts.leadership if parts.config.registry.directory is None else Own(),
        rush=rush,
    )


def _around(parts: Parts, minter: GrantMinter, book: GrantBook, board: StatusBoard) -> Around | None:
    if parts.vault is None or parts.pulse is None:
        return None
    return Around(
        config=parts.config,
        registry=parts.clients.registry,
        store=parts.vault,
        reach=parts.pulse,
        anchors=parts.clients.anchors,
        minter=minter,
        callers=parts.gate,
        book=book,
        leader=parts.leadership,
        board=board,
        audit=parts.audit,
        metrics=parts.metrics,
        clock=parts.time,
        rules=parts.rules,
    )
