"""Joins what answers callers: who they are, what they get, and in which turn."""

from dataclasses import dataclass

from broker.endpoints import Services
from broker.parts import Parts
from broker.services.authenticate import Authenticator
from broker.services.board import StatusBoard
from broker.services.deliver import Deliverer
from broker.services.explain import Explainer
from broker.services.failure_limit import FailureLimit
from broker.services.grant_book import GrantBook
from broker.services.introspect import Introspector
from broker.services.issue import Issuer
from broker.services.near_misses import NearMisses
from broker.services.revoke import Revoker
from broker.services.rotation.rotate import Rotator
from broker.services.storms.client_rate import ClientRates
from broker.services.storms.gated import GatedMinter
from broker.services.storms.shared_tokens import SharedTokens
from broker.services.token_anchors import TokenAnchors


@dataclass(frozen=True, slots=True)
class Shared:
    """What several services remember together. ``keeper`` is None where nothing is kept in Vault."""

    book: GrantBook
    board: StatusBoard
    tokens: TokenAnchors
    minter: GatedMinter
    reused: SharedTokens
    keeper: Rotator | None
    rates: ClientRates


def services(parts: Parts, shared: Shared, near_misses: NearMisses) -> Services:
    """Return what the endpoints call."""
    clock, rules, audit = parts.clock, parts.rules, parts.audit
    rates, gate = shared.rates, parts.gate
    issuer = Issuer(
        minter=shared.minter,
        shared=shared.reused,
        rates=rates,
        audit=audit,
        metrics=parts.metrics,
        clock=clock,
        rules=rules,
    )
    introspector = Introspector(parts.reviews, gate)
    return Services(
        authenticator=_authenticator(parts, near_misses),
        issuer=issuer,
        deliverer=Deliverer(
            rotator=shared.keeper, issuer=issuer, gate=parts.deliveries, rates=rates, rules=rules, clock=clock
        ),
        explainer=Explainer(
            rules=rules,
            rates=rates,
            clock=clock,
            book=shared.book,
            board=shared.board,
            in_vault=shared.keeper is not None,
        ),
        introspector=introspector,
        revoker=Revoker(
            tokens=shared.tokens,
            introspector=introspector,
            gate=gate,
            audit=audit,
            metrics=parts.metrics,
            clock=clock,
        ),
    )


def _authenticator(parts: Parts, near_misses: NearMisses) -> Authenticator:
    return Authenticator(
        registry=parts.clients.registry,
        checks=parts.checks,
        limit=FailureLimit(parts.clock),
        metrics=parts.metrics,
        clock=parts.clock,
        limits=parts.rules.limits,
        near_miss=near_misses,
    )
