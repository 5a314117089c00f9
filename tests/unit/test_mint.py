"""A token is minted for what was prepared, and a failure says what is not prepared any more; among fakes."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from broker.errors import BrokerError, Reason
from broker.model.anchor import grant_anchor
from broker.model.client import ClientId, Grant, Revocation
from broker.model.decision import Allowed
from broker.model.prepared import Prepared
from broker.model.token import Anchor, MintedToken, TokenSpec
from broker.services.grant_book import GrantBook
from broker.services.mint import GrantMinter
from broker.services.token_anchors import TokenAnchors
from tests.support.processes import until
from tests.support.rotation import KEY, FakeCluster, HandClock, Power, client, grant

AUDIENCE = "https://kubernetes.default.svc"


@dataclass
class Mint:
    """Implements Minter: a cluster's, or one that fails or does not answer."""

    cluster: FakeCluster
    fault: BrokerError | None = None
    hangs: bool = False
    specs: list[TokenSpec] = field(default_factory=list)
    minted: asyncio.Event = field(default_factory=asyncio.Event)

    async def mint(self, spec: TokenSpec) -> MintedToken:
        """Mint, after the token may have been made all the same."""
        self.specs.append(spec)
        token = await self.cluster.mint(spec)
        self.minted.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise self.fault
        return token

    async def rehearse(self, spec: TokenSpec) -> MintedToken:
        """Never called by what hands out tokens."""
        raise AssertionError(spec)


class Bench:
    """A minter among fakes, and a grant that is prepared."""

    def __init__(self, of: Grant) -> None:
        self.grant, self.client = of, client(grants=(of,))
        self.cluster = FakeCluster(Power(), HandClock())
        self.mint, self.book, self.asked = Mint(self.cluster), GrantBook(), list[ClientId]()
        self.tokens = TokenAnchors(self.cluster, HandClock())
        self.minter = GrantMinter(minter=self.mint, book=self.book, tokens=self.tokens, recheck=self.asked.append)

    async def prepared(self) -> Prepared:
        """Let the grant be issued for."""
        anchor = await self.cluster.ensure(self.client, grant_anchor(self.client.uid, self.grant))
        self.book.put(self.client, made := Prepared(self.grant, anchor, "uid-of-account"))
        return made

    async def issue(self) -> str:
        """Return the id of a token."""
        return (await self.minter.mint(self.client, Allowed(self.grant, AUDIENCE, 900))).id

    async def failure(self) -> BrokerError:
        """Return why there is none."""
        with pytest.raises(BrokerError) as refused:
            await self.issue()
        return refused.value


TOGETHER, SINGLY = grant(), grant(revocation=Revocation.TOKEN)


async def test_a_token_is_for_what_was_looked_at() -> None:
    """The account by its UID, so that one made again gets nothing; bound to the grant's anchor."""
    bench = Bench(TOGETHER)
    made = await bench.prepared()
    token_id = await bench.issue()

    assert bench.mint.specs == [TokenSpec("shop", "reporter", AUDIENCE, 900, made.anchor, "uid-of-account")]
    assert token_id.startswith("jti-")
    assert bench.asked == []


async def test_a_token_with_an_end_of_its_own_is_called_by_it() -> None:
    """Its anchor is its own, for the same account."""
    bench = Bench(SINGLY)
    made = await bench.prepared()
    token_id = await bench.issue()
    (spec,) = bench.mint.specs

    assert spec.anchor is not None
    assert spec.anchor != made.anchor
    assert spec.anchor.name == f"{grant_anchor('uid-1', SINGLY).name}-t{token_id}"
    assert spec.account_uid == "uid-of-account"


@pytest.mark.parametrize("which", [TOGETHER, SINGLY], ids=["Grant", "Token"])
async def test_a_grant_whose_anchor_is_gone_is_prepared_again_first(which: Grant) -> None:
    """Nobody else asks the API server in vain meanwhile, and its client is visited."""
    bench = Bench(which)
    await bench.prepared()
    bench.cluster.anchors.clear()
    first = await bench.failure()
    calls = len(bench.cluster.power.calls)
    second = await bench.failure()

    assert (first.reason, second.reason) == (Reason.ANCHOR_MISSING, Reason.ANCHOR_MISSING)
    assert bench.book.get(bench.client, which) is None
    assert bench.asked == [KEY.client] * 2
    assert len(bench.cluster.power.calls) == calls


async def test_what_was_prepared_anew_meanwhile_is_not_forgotten() -> None:
    """The failure is about the anchor before."""
    bench = Bench(TOGETHER)
    made = await bench.prepared()
    newer = replace(made, anchor=Anchor("a", "newer"))
    bench.cluster.anchors.clear()
    mint = bench.cluster.mint

    async def overtaken(spec: TokenSpec) -> MintedToken:
        bench.book.put(bench.client, newer)
        return await mint(spec)

    bench.cluster.mint = overtaken  # type: ignore[method-assign]
    await bench.failure()

    assert bench.book.get(bench.client, TOGETHER) == newer


@pytest.mark.parametrize(
    ("reason", "rechecked"),
    [
        (Reason.SERVICE_ACCOUNT_MISSING, True),
        (Reason.BROKER_NOT_AUTHORIZED, True),
        (Reason.KUBERNETES_REJECTED, True),
        (Reason.KUBERNETES_UNAVAILABLE, False),
        (Reason.KUBERNETES_TIMEOUT, False),
        (Reason.POLICY_MISSING, False),
    ],
)
async def test_only_a_failure_of_the_grant_itself_has_its_client_visited(reason: Reason, *, rechecked: bool) -> None:
    """An API server that is away is not asked for more; either way the grant stays prepared."""
    bench = Bench(TOGETHER)
    made = await bench.prepared()
    bench.mint.fault = BrokerError(reason, "no")

    assert (await bench.failure()).reason is reason
    assert bench.asked == ([KEY.client] if rechecked else [])
    assert bench.book.get(bench.client, TOGETHER) == made


async def test_a_token_that_failed_is_ended_all_the_same() -> None:
    """It may have been minted; the anchors of others stay."""
    bench = Bench(SINGLY)
    await bench.prepared()
    kept = await bench.issue()
    bench.mint.fault = BrokerError(Reason.KUBERNETES_TIMEOUT, "no answer")
    await bench.failure()
    await abandoned(bench)

    assert [name for name in bench.cluster.anchors if "-t" in name.removeprefix("tokenbroker")] == [
        f"{grant_anchor('uid-1', SINGLY).name}-t{kept}"
    ]


async def test_a_token_whose_caller_is_gone_is_ended() -> None:
    """Cancelled while the API server has minted it, and not answered yet."""
    bench = Bench(SINGLY)
    await bench.prepared()
    bench.mint.hangs = True
    asking = asyncio.create_task(bench.issue())
    await asyncio.wait_for(bench.mint.minted.wait(), 5)
    asking.cancel()
    await asyncio.wait([asking])
    (token,) = bench.cluster.tokens
    before = bench.cluster.accepts(token)
    await abandoned(bench)

    assert asking.cancelled()
    assert before
    assert not bench.cluster.accepts(token)


@pytest.mark.parametrize(("which", "ended"), [(TOGETHER, False), (SINGLY, True)], ids=["Grant", "Token"])
async def test_a_token_that_is_not_handed_out_after_all_is_ended_where_it_can_be(which: Grant, *, ended: bool) -> None:
    """One that shares its end with others is nobody's: it was never told to anybody."""
    bench = Bench(which)
    await bench.prepared()
    issued = await bench.minter.mint(bench.client, Allowed(which, AUDIENCE, 900))
    bench.minter.abandon(bench.client, issued)
    await abandoned(bench)

    assert bench.cluster.accepts(issued.token.value.reveal()) is not ended


async def abandoned(bench: Bench) -> None:
    """Let what was given up be ended."""
    running = asyncio.create_task(bench.tokens.queue.run())

    async def nothing_left() -> bool:
        return len(bench.tokens.queue) == 0

    await until(nothing_left, what="abandoned tokens have ended")
    running.cancel()
    await asyncio.wait([running])
