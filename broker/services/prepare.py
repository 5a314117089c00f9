"""Make one grant ready: try out a mint, look at what its account may do, and only then make its anchor."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError, Fault, Reason, raise_if
from broker.model.anchor import grant_anchor, trial_anchor
from broker.model.client import Client, ClientId, Grant, Revocation
from broker.model.decision import Rules, allowed_audiences, grant_problem
from broker.model.former_grants import ListedAnchor
from broker.model.prepared import Prepared
from broker.model.status import ENDING, AccessFacts
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.ports import Anchors, Leader, Minter
from broker.services.anchored import AnchoredGrants
from broker.services.by_grant import keep_granted
from broker.services.courtesy import Kind, Turns
from broker.services.ending import Ender
from broker.services.grant_book import GrantBook, not_ready
from broker.services.token_anchors import TokenAnchors

LOOKS_AGAIN = 8
"""How many grants are looked at again at a time, in routine, while no callers come."""

PATIENCE_SECONDS = 60.0
"""When such looks are late by more, they go on as if no callers came: a right given later is to be noticed."""


class AccessCheck(Protocol):
    """What is needed of :mod:`broker.services.verify`."""

    async def check(self, client: Client, grant: Grant, token: MintedToken) -> AccessFacts:
        """Return what a grant's account may do, asked with a token of its own.

        Raises BrokerError: account_too_strong, access_not_as_declared, kubernetes_unavailable, kubernetes_timeout.
        """

    def wait(self, client: Client, grants: Collection[Grant]) -> float:
        """Return for how many seconds looking at grants of a client again has to wait, for the API server's sake.

        It is 0 where one was not looked at as it stands now, or something was found, and when its turn has come.
        """

    def routine(self, client: Client, grant: Grant) -> bool:
        """Tell whether a look tells nothing new, most likely: at a grant as it was looked at, that nobody asked for."""

    def want(self, client_id: ClientId) -> None:
        """Take note that a request was refused, and that the client's next look is no routine for that."""

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What preparing a grant acts with; ``turns`` are taken by looks that are routine."""

    turns: Turns
    anchors: Anchors
    minter: Minter
    access: AccessCheck
    ender: Ender
    anchored: AnchoredGrants
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
        self._again = Kind(LOOKS_AGAIN)
        self._trials: defaultdict[ClientId, dict[str, Anchor]] = defaultdict(dict)

    async def prepare(self, client: Client, grant: Grant, listed: ListedAnchor | None = None) -> AccessFacts | None:
        """Return what was found out about the account, where this replica looked.

        ``listed`` is what the leader says in the TokenClient's status about the grant, which saves one that follows
        from asking.

        Raises BrokerError: grant_forbidden, limits_exceeded, account_too_strong, access_not_as_declared, and those of
        anchors and minter.
        """
        try:
            return await self._prepare(client, grant, listed)
        except BrokerError as error:
            if error.reason in ENDING:
                await self._bar(client, grant, error)
            else:
                self._book.failed(client, grant, Fault.of(error))
            raise

    def take_over(self, client: Client, grant: Grant, listed: ListedAnchor | None) -> bool:
        """Let a grant be issued for by the word of the leader before, until this replica has looked at it itself.

        Returns False where there is no such word.
        """
        prepared = _by_word(client, grant, listed)
        if prepared is not None:
            self._book.put(client, prepared)
        return prepared is not None

    def wait(self, client: Client) -> float:
        """Return for how many seconds those grants of a client have to wait that need nothing but another look."""
        ready = [grant for grant in client.grants if self._book.get(client, grant) is not None]
        return self._hands.access.wait(client, ready) if ready and self._hands.leader.leading else 0.0

    def want(self, client_id: ClientId) -> None:
        """Take note that a request of a client was refused for what may be mended: its next look is no routine."""
        self._hands.access.want(client_id)

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""
        self._trials.pop(client_id, None)
        self._hands.access.forget(client_id)

    def keep(self, client: Client) -> None:
        """Forget what is remembered of grants that a client has no more."""
        keep_granted(client, self._trials.get(client.id, {}))
        self._hands.tokens.keep(client)

    def forbids(self, client: Client) -> bool:
        """Tell whether the operator does not allow a grant. Raises BrokerError(registry_stale)."""
        return any(self._problem(client, grant) for grant in client.grants)

    async def forbid(self, client: Client) -> None:
        """Bar the grants that the operator does not allow, and end their tokens. Raises BrokerError(registry_stale)."""
        for grant in client.grants:
            problem = self._problem(client, grant)
            if problem is not None:
                await self._bar(client, grant, problem)

    def _problem(self, client: Client, grant: Grant) -> BrokerError | None:
        """Return why the operator does not allow a grant, or None. Raises BrokerError(registry_stale)."""
        problem = grant_problem(client.id.namespace, grant, self._rules)
        return BrokerError(problem.reason, problem.detail) if problem is not None else None

    async def _prepare(self, client: Client, grant: Grant, listed: ListedAnchor | None) -> AccessFacts | None:
        ready = self._book.get(client, grant) is not None
        if ready and self._hands.leader.leading and self._hands.access.routine(client, grant):
            async with self._hands.turns.turn(self._again):
                return await self._prepare_now(client, grant, listed)
        return await self._prepare_now(client, grant, listed)

    async def _prepare_now(self, client: Client, grant: Grant, listed: ListedAnchor | None) -> AccessFacts | None:
        raise_if(self._problem(client, grant))
        if not self._hands.leader.leading:
            self._book.put(client, await self._follow(client, grant, listed))
            self._hands.anchored.note(client.id, client.uid, grant)
            return None
        token = await self._try_out(client, grant)
        facts = await self._hands.access.check(client, grant, token)
        self._hands.anchored.note(client.id, client.uid, grant)
        prepared = Prepared(grant, await self._anchor(client, grant), token.account_uid)
        self._book.put(client, prepared)
        await self._hands.tokens.sweep(client, prepared)
        return facts

    async def _follow(self, client: Client, grant: Grant, listed: ListedAnchor | None) -> Prepared:
        """Return what the leader has prepared: by its word, or where there is none yet, by the anchor that it made."""
        prepared, known = _by_word(client, grant, listed), self._book.get(client, grant)
        if prepared is not None:
            return prepared
        if listed is not None and known is not None and known.anchor.uid == listed.uid:
            return known  # the grant has not changed, whatever else the leader has not seen yet
        which = grant_anchor(client.uid, grant)
        anchor = await self._hands.anchors.find(client, which) if listed is None else None
        if anchor is None:
            if known is not None:
                self._book.drop(client, known)
            raise not_ready()
        token = await self._rehearse(client, grant, anchor, allowed_audiences(grant, self._rules)[0])
        return Prepared(grant, anchor, token.account_uid)

    async def _try_out(self, client: Client, grant: Grant) -> MintedToken:
        """Mint for the grant's first audience, and for the API server's, which has to be asked as the account."""
        known = self._trials[client.id].get(grant.name)
        try:
            return await self._try_out_with(client, grant, await self._trial(client, grant))
        except BrokerError as error:
            if error.reason is not Reason.ANCHOR_MISSING or known is None:
                raise
        return await self._try_out_with(client, grant, await self._trial(client, grant))  # it was deleted since

    async def _try_out_with(self, client: Client, grant: Grant, trial: Anchor | None) -> MintedToken:
        audience = allowed_audiences(grant, self._rules)[0]
        token = await self._rehearse(client, grant, trial, audience)
        if audience == self._rules.api_audience:
            return token
        return await self._rehearse(client, grant, trial, self._rules.api_audience)

    async def _trial(self, client: Client, grant: Grant) -> Anchor | None:
        """Return what the trial is bound to: nothing, where that is what has to be tried."""
        if grant.revocation is Revocation.NONE:
            return None
        which, trials = trial_anchor(client.uid, grant), self._trials[client.id]
        known = trials.get(grant.name)
        if known is None or known.name != which.name:
            if not self._hands.leader.leading:
                raise not_ready()  # it was lost while a trial with the one before was under way
            known = trials[grant.name] = await self._hands.anchors.ensure(client, which)
        return known

    async def _rehearse(self, client: Client, grant: Grant, trial: Anchor | None, audience: str) -> MintedToken:
        spec = TokenSpec(client.id.namespace, grant.service_account, audience, grant.ttl.default_seconds, trial)
        try:
            return await self._hands.minter.rehearse(spec)
        except BrokerError as error:
            if error.reason is Reason.ANCHOR_MISSING:
                self._trials[client.id].pop(grant.name, None)
            raise

    async def _anchor(self, client: Client, grant: Grant) -> Anchor:
        """Return the grant's anchor, made if need be, by which the other replicas know that it was looked at."""
        which = grant_anchor(client.uid, grant)
        if self._book.get(client, grant) is not None:
            found = await self._hands.anchors.find(client, which)
            if found is not None:
                return found
        if not self._hands.leader.leading:
            raise not_ready()  # it was lost while the grant was looked at, or the anchor looked for
        return await self._hands.anchors.ensure(client, which)

    async def _bar(self, client: Client, grant: Grant, error: BrokerError) -> None:
        """Let nothing be issued from now on, and end what was: each time, for an anchor may be made late."""
        self._book.bar(client, grant, Fault.of(error))
        self._trials[client.id].pop(grant.name, None)
        if self._hands.leader.leading:
            await self._hands.ender.end_barred(client.id, client.uid, grant, str(error.reason))


def _by_word(client: Client, grant: Grant, listed: ListedAnchor | None) -> Prepared | None:
    """Return what the leader says that it has prepared a grant with, as the grant stands now, or None."""
    if listed is None or not listed.uid or not listed.current:
        return None
    return Prepared(grant, Anchor(grant_anchor(client.uid, grant).name, listed.uid), listed.account_uid)
