"""Anchors of single tokens, for grants whose ``revocation`` is ``Token``.

A token's anchor hangs below a bucket, one for each period of time, and the bucket below the grant's anchor. When all
tokens of a period have ended by themselves, their bucket is deleted, and the garbage collector deletes the rest:
nothing has to be listed, and nothing remembered over a restart.
"""

import secrets
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from broker.errors import BrokerError, Reason
from broker.model.anchor import AnchorId, bucket_anchor, grant_anchor, token_anchor
from broker.model.client import Client, ClientId, Grant, Revocation
from broker.model.decision import MAX_TTL_SECONDS
from broker.model.prepared import Prepared
from broker.model.token import Anchor
from broker.ports import Anchors, Clock
from broker.services.by_grant import keep_granted
from broker.services.grant_book import not_ready
from broker.services.workqueue import WorkQueue

BUCKET_SECONDS = 6 * 3600
LOOK_BACK = 28
"""How many buckets before those in use are deleted after a start: a week's. Older ones go with the grant's anchor."""

MAX_TOKENS = 1000
"""How many tokens of one grant may have anchors of their own in a bucket, by the count of this process."""

BUCKETS_IN_USE = MAX_TTL_SECONDS // BUCKET_SECONDS + 1
"""A token that was handed out at the very end of a bucket lives through as many more."""


@dataclass(slots=True)
class _Open:
    """The bucket that tokens are put into now."""

    anchor: Anchor
    tokens: int = 0


class TokenAnchors:
    """Makes and deletes anchors of single tokens."""

    def __init__(self, anchors: Anchors, clock: Clock) -> None:
        self._anchors = anchors
        self._clock = clock
        self._open: defaultdict[ClientId, dict[str, _Open]] = defaultdict(dict)
        self._swept: defaultdict[ClientId, dict[str, tuple[Anchor, int]]] = defaultdict(dict)
        self.queue: WorkQueue[tuple[str, str]] = WorkQueue("abandoned-tokens", self._visit, workers=2)

    async def make(self, client: Client, prepared: Prepared) -> tuple[str, Anchor]:
        """Return the id of a token to be, and an anchor for it alone.

        Raises BrokerError: too_many_tokens, anchor_missing, and those of :meth:`broker.ports.Anchors.ensure`.
        """
        bucket = await self._bucket(client, prepared)
        if bucket.tokens >= MAX_TOKENS:
            raise _too_many(self._seconds_left())
        bucket.tokens += 1
        token_id = secrets.token_hex(12)
        which = token_anchor(grant_anchor(client.uid, prepared.grant), token_id)
        try:
            return token_id, await self._anchors.ensure(client, which, bucket.anchor)
        except BaseException:  # also where the caller is gone: it may have been made all the same
            self.abandon(client, prepared.grant, token_id)
            raise

    async def delete(self, client: Client, grant: Grant, token_id: str) -> bool:
        """End one token; tell whether there was one of that id.

        Raises BrokerError: broker_not_authorized, kubernetes_unavailable, kubernetes_timeout.
        """
        which = token_anchor(grant_anchor(client.uid, grant), token_id)
        return await self._anchors.delete(client.id.namespace, which.name)

    def abandon(self, client: Client, grant: Grant, token_id: str) -> None:
        """See to it that a token ends that was perhaps minted, and not handed out; it takes up no room."""
        bucket = self._open.get(client.id, {}).get(grant.name)
        if bucket is not None:
            bucket.tokens = max(0, bucket.tokens - 1)
        which = token_anchor(grant_anchor(client.uid, grant), token_id)
        self.queue.add((client.id.namespace, which.name))

    async def sweep(self, client: Client, prepared: Prepared) -> None:
        """Delete the buckets whose tokens have all ended. Raises BrokerError like :meth:`delete`."""
        under, name = prepared.anchor, prepared.grant.name
        if prepared.grant.revocation is not Revocation.TOKEN:
            return
        last = _number(self._clock.now()) - BUCKETS_IN_USE - 1
        before, done = self._swept[client.id].get(name, (under, last - LOOK_BACK))
        first = done + 1 if before == under else last - LOOK_BACK + 1
        for number in range(first, last + 1):
            which = self._name(client, prepared.grant, under, number)
            await self._anchors.delete(client.id.namespace, which.name)
        self._swept[client.id][name] = (under, last)

    def keep(self, client: Client) -> None:
        """Forget what is remembered of grants that a client has no more."""
        keep_granted(client, self._open.get(client.id, {}), self._swept.get(client.id, {}))

    def forget(self, client_id: ClientId) -> None:
        """Forget a client that went."""
        self._open.pop(client_id, None)
        self._swept.pop(client_id, None)

    async def _visit(self, abandoned: tuple[str, str]) -> None:
        await self._anchors.delete(*abandoned)

    async def _bucket(self, client: Client, prepared: Prepared) -> _Open:
        """Return the bucket of this period, which is there: an anchor below one that went would soon go, too."""
        grant, under, number = prepared.grant, prepared.anchor, _number(self._clock.now())
        which = self._name(client, grant, under, number)
        found = await self._anchors.find(client, which)
        if found is None:
            if await self._anchors.find(client, grant_anchor(client.uid, grant)) != under:
                raise not_ready()
            found = await self._anchors.ensure(client, which, under)
        now = self._open[client.id].get(grant.name)
        if now is None or now.anchor != found:
            now = self._open[client.id][grant.name] = _Open(found)
        return now

    def _name(self, client: Client, grant: Grant, under: Anchor, number: int) -> AnchorId:
        return bucket_anchor(grant_anchor(client.uid, grant), under, number)

    def _seconds_left(self) -> int:
        return BUCKET_SECONDS - int(self._clock.now().timestamp()) % BUCKET_SECONDS


def _number(moment: datetime) -> int:
    return int(moment.timestamp()) // BUCKET_SECONDS


def _too_many(retry_after: int) -> BrokerError:
    return BrokerError(
        Reason.TOO_MANY_TOKENS,
        f"More than {MAX_TOKENS} tokens of this grant were handed out lately, each with an end of its own.",
        operator_detail=(
            f"A grant with revocation Token has room for {MAX_TOKENS} tokens in {BUCKET_SECONDS // 3600} h: let its "
            "clients keep their tokens, or set revocation to Grant."
        ),
        retry_after=retry_after,
    )
