"""Make one grant ready: try out a mint, look at what its account may do, and only then make its anchor."""

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError, Fault, Reason
from broker.model.anchor import grant_anchor, trial_anchor
from broker.model.client import Client, ClientId, Grant, Revocation
from broker.model.decision import Rules, allowed_audiences, grant_problem
from broker.model.status import ACCOUNT_FINDINGS, ENDING, AccessFacts
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.ports import Anchors, Leader, Minter
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook, Prepared, not_ready
from broker.services.token_anchors import TokenAnchors

_Key = tuple[str, Grant]
"""A TokenClient's UID, and a grant as it stands."""


class AccessCheck(Protocol):
    """What is needed of :mod:`broker.services.verify`."""

    async def check(self, client: Client, grant: Grant, token: MintedToken) -> AccessFacts:
        """Return what a grant's account may do, asked with a token of its own.

        Raises BrokerError: account_too_strong, access_not_as_declared, kubernetes_unavailable, kubernetes_timeout.
        """

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What preparing a grant acts with."""

    anchors: Anchors
    minter: Minter
    access: AccessCheck
    ender: Ender
    tokens: TokenAnchors
    leader: Leader


class Preparer:
    """Puts grants into the book, or bars them there. The anchor is the leader's word that a grant was looked at.

    Where another replica leads, its anchor is used if it is there, and is never made: a replica that lost sight of
    a suspension must not give tokens a new life.
    """

    def __init__(self, hands: Hands, book: GrantBook, rules: Rules) -> None:
        self._hands = hands
        self._book = book
        self._rules = rules
        self._ended: defaultdict[ClientId, set[_Key]] = defaultdict(set)
        self._trials: defaultdict[ClientId, dict[_Key, Anchor]] = defaultdict(dict)

    async def prepare(self, client: Client, grant: Grant) -> AccessFacts | None:
        """Return what was found out about the account, where this replica looked.

        Raises BrokerError: grant_forbidden, limits_exceeded, account_too_strong, access_not_as_declared, and those of
        anchors and minter.
        """
        try:
            return await self._prepare(client, grant)
        except BrokerError as error:
            if error.reason in ENDING:
                await self._bar(client, grant, error)
            else:
                self._book.failed(client, grant, Fault.of(error))
            raise

    async def _prepare(self, client: Client, grant: Grant) -> AccessFacts | None:
        problem = grant_problem(client.id.namespace, grant, self._rules)
        if problem is not None:
            raise BrokerError(problem.reason, problem.detail)
        if not self._hands.leader.leading:
            await self._follow(client, grant)
            return None
        token = await self._try_out(client, grant)
        facts = await self._hands.access.check(client, grant, token)
        anchor = await self._anchor(client, grant)
        prepared = Prepared(grant, _bound(grant, anchor), token.account_uid)
        self._book.put(client, prepared)
        self._hands.ender.spare(client.id, grant.name)
        self._ended[client.id].discard((client.uid, grant))
        await self._hands.tokens.sweep(client, prepared)
        return facts

    async def _follow(self, client: Client, grant: Grant) -> None:
        anchor = await self._hands.anchors.find(client, grant_anchor(client.uid, grant))
        if anchor is None:
            known = self._book.get(client, grant)
            if known is not None:
                self._book.drop(client, known)
            raise not_ready()
        self._book.put(client, Prepared(grant, _bound(grant, anchor), ""))

    async def _try_out(self, client: Client, grant: Grant) -> MintedToken:
        """Mint for the grant's first audience, and for the API server's, which has to be asked as the account."""
        trial = await self._trial(client, grant)
        audience = allowed_audiences(grant, self._rules)[0]
        token = await self._rehearse(client, grant, trial, audience)
        if audience == self._rules.api_audience:
            return token
        return await self._rehearse(client, grant, trial, self._rules.api_audience)

    async def _trial(self, client: Client, grant: Grant) -> Anchor | None:
        """Return what the trial is bound to: nothing, where that is what has to be tried."""
        if grant.revocation is Revocation.NONE:
            return None
        trials, key = self._trials[client.id], (client.uid, grant)
        if key not in trials:
            trials[key] = await self._hands.anchors.ensure(client, trial_anchor(client.uid, grant))
        return trials[key]

    async def _rehearse(self, client: Client, grant: Grant, trial: Anchor | None, audience: str) -> MintedToken:
        spec = TokenSpec(client.id.namespace, grant.service_account, audience, grant.ttl.default_seconds, trial)
        try:
            return await self._hands.minter.rehearse(spec)
        except BrokerError as error:
            if error.reason is Reason.ANCHOR_MISSING:
                self._trials[client.id].pop((client.uid, grant), None)
            raise

    async def _anchor(self, client: Client, grant: Grant) -> Anchor:
        """Return the grant's anchor, made if need be, by which the other replicas know that it was looked at."""
        if not self._hands.leader.leading:
            raise not_ready()  # it was lost while the grant was looked at
        which = grant_anchor(client.uid, grant)
        if self._book.get(client, grant) is not None:
            found = await self._hands.anchors.find(client, which)
            if found is not None:
                return found
        return await self._hands.anchors.ensure(client, which)

    async def _bar(self, client: Client, grant: Grant, error: BrokerError) -> None:
        """Let nothing be issued from now on, and end what was, once; where that fails, the next visit tries again."""
        self._book.bar(client, grant, Fault.of(error))
        if self._hands.leader.leading:
            with suppress(BrokerError):  # counted by the ender
                await self._end(client, grant, error.reason)

    async def _end(self, client: Client, grant: Grant, reason: Reason) -> None:
        key, ended = (client.uid, grant), self._ended[client.id]
        self._trials[client.id].pop(key, None)
        if key not in ended:
            await self._hands.ender.end_barred(client.id, client.uid, grant, str(reason))
            ended.add(key)
        elif reason in ACCOUNT_FINDINGS:  # which took another trial
            await self._hands.anchors.delete(client.id.namespace, trial_anchor(client.uid, grant).name)

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""
        self._ended.pop(client_id, None)
        self._trials.pop(client_id, None)
        self._hands.access.forget(client_id)


def _bound(grant: Grant, anchor: Anchor) -> Anchor | None:
    """Return what tokens of a grant are bound to."""
    return None if grant.revocation is Revocation.NONE else anchor
