"""One token for many requests at once, for grants with ``reuse``."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.model.client import Client, ClientId
from broker.model.decision import Allowed, Ask
from broker.model.prepared import Prepared
from broker.model.proof import ProvedBy
from broker.model.token import Anchor
from broker.services.mint import Issued
from broker.services.storms import shared_tokens
from broker.services.storms.shared_tokens import ShareKey
from tests.support.processes import until
from tests.support.storm import ACCOUNT_UID, BY_SECRET, REUSE, Storm, instances, jtis

MANY = 50


async def test_requests_at_once_cost_one_mint_and_have_a_record_each() -> None:
    """All get the token of the first; each is written down under its own request, and counted."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(MANY)]
    await storm.waiting()
    storm.mints.open.set()
    issued = await asyncio.gather(*asking)

    assert storm.mints.asked == 1
    assert len({one.token.value.reveal() for one in issued}) == 1
    assert len({record.origin.request_id for record in storm.audit.records}) == MANY
    assert len(jtis(storm.audit.records)) == 1
    assert sorted(record.reused for record in storm.audit.records) == [False] + [True] * (MANY - 1)
    assert (storm.count("tokens_issued"), storm.count("tokens_reused")) == (MANY, MANY - 1)


async def test_the_same_token_is_handed_out_again_for_as_long_as_the_grant_says() -> None:
    """And not a moment longer; it is not kept alive by being asked for."""
    storm = await Storm.of(instances())
    first = await storm.ask()
    storm.clock.pass_(REUSE - 1)
    again = await storm.ask()
    storm.clock.pass_(1)
    later = await storm.ask()

    assert again.token is first.token
    assert later.token.jti != first.token.jti
    assert not later.reused


async def test_what_is_left_is_told_of_a_token_that_is_handed_out_again() -> None:
    """Its end is its own; of its life there is what is left, also where it is written down."""
    storm = await Storm.of(instances())
    first = await storm.ask()
    storm.clock.pass_(40.2)
    again = await storm.ask()

    assert (first.age_seconds, again.age_seconds) == (0, 41)
    assert again.token.expires_at == first.token.expires_at
    assert again.granted_seconds == first.granted_seconds - 41
    assert [record.granted_seconds for record in storm.audit.records] == [first.granted_seconds, again.granted_seconds]


async def test_without_reuse_each_token_is_handed_out_once() -> None:
    """Also to requests that come at the same moment."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask(ask=Ask("single")) for _ in range(MANY)]
    await storm.waiting(mints=MANY)
    storm.mints.open.set()
    issued = await asyncio.gather(*asking)

    assert len({one.token.jti for one in issued}) == MANY
    assert not any(record.reused for record in storm.audit.records)
    assert storm.count("tokens_reused", "single") is None
    assert len(storm.shared) == 0


async def test_who_hangs_up_while_waiting_takes_nothing_from_the_others() -> None:
    """Neither the token, nor the mint."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(3)]
    await storm.waiting()
    asking[1].cancel()
    await storm.waiting()
    storm.mints.open.set()
    first, gone, third = await asyncio.gather(*asking, return_exceptions=True)

    assert isinstance(gone, asyncio.CancelledError)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert first.token is third.token
    assert storm.mints.asked == 1


async def test_another_goes_on_where_the_one_who_asked_first_hangs_up() -> None:
    """Again one mint for all who are left."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(MANY)]
    await storm.waiting()
    asking[0].cancel()
    await storm.waiting(mints=2)
    storm.mints.open.set()
    issued = await asyncio.gather(*asking[1:])

    assert len({one.token.jti for one in issued}) == 1
    assert storm.mints.asked == 2
    assert sorted(record.reused for record in storm.audit.records) == [False] + [True] * (MANY - 2)


async def test_who_has_waited_in_vain_too_often_comes_again() -> None:
    """Where each for whom it is waited hangs up, nobody waits for ever."""
    storm = await Storm.of(instances(), held=True)
    first = [storm.ask() for _ in range(shared_tokens.MAX_WAITS)]
    await storm.waiting()
    last = storm.ask()
    for count, one in enumerate(first, 2):
        await storm.waiting(mints=count - 1)
        one.cancel()
    with pytest.raises(BrokerError, match="anchor_missing") as refused:
        await last

    assert refused.value.retry_after is not None


async def test_a_mint_that_fails_fails_those_who_waited_for_it_and_nobody_else() -> None:
    """It is one call for all of them; nothing of it is kept, and the next request asks again."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(MANY)]
    await storm.waiting()
    storm.mints.fault = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away", operator_detail="who", retry_after=7)
    storm.mints.open.set()
    failures = await asyncio.gather(*asking, return_exceptions=True)
    storm.mints.fault = None
    issued = await storm.ask()

    told = {
        (one.reason, one.detail, one.operator_detail, one.retry_after)
        for one in failures
        if isinstance(one, BrokerError)
    }
    assert told == {(Reason.KUBERNETES_UNAVAILABLE, "away", "who", 7)}
    assert len(failures) == len({id(one) for one in failures}) == MANY
    assert len(storm.audit.refusals) == MANY
    assert (storm.mints.asked, issued.reused) == (2, False)


async def test_a_bug_in_one_request_is_not_everybodys() -> None:
    """Who waited tries by itself."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(2)]
    await storm.waiting()
    storm.mints.fault = RuntimeError("bug")
    storm.mints.open.set()
    failures = await asyncio.gather(*asking, return_exceptions=True)

    assert [type(one) for one in failures] == [RuntimeError] * 2
    assert storm.mints.asked == 2


async def test_a_token_that_could_not_be_written_down_is_handed_out_to_nobody() -> None:
    """Each hand-out needs its own record, whatever was written for others."""
    storm = await Storm.of(instances())
    await storm.ask()
    storm.audit.fault = BrokerError(Reason.AUDIT_UNAVAILABLE, "disk full")

    with pytest.raises(BrokerError, match="audit_unavailable"):
        await storm.ask()


async def test_a_slow_mint_serves_all_who_waited_for_it() -> None:
    """Also where it took longer than the token is handed out again: reuse begins when it has come."""
    storm = await Storm.of(instances(), held=True)
    asking = [storm.ask() for _ in range(3)]
    await storm.waiting()
    storm.clock.pass_(REUSE + 5)
    storm.mints.open.set()
    issued = await asyncio.gather(*asking)
    storm.clock.pass_(REUSE - 1)
    again = await storm.ask()

    assert len({one.token.jti for one in (*issued, again)}) == 1
    assert again.age_seconds == 2 * REUSE + 4
    assert storm.mints.asked == 1


async def test_a_token_is_not_handed_out_again_with_less_than_half_of_its_life() -> None:
    """By the date, however little time the monotonic clock has counted: it stands still while a machine sleeps."""
    storm = await Storm.of(instances())
    first = await storm.ask()
    monotonic = storm.clock.monotonic()
    storm.clock.monotonic = lambda: monotonic  # type: ignore[method-assign]
    storm.clock.pass_(first.granted_seconds / 2)
    half = await storm.ask()
    storm.clock.pass_(1)
    later = await storm.ask()

    assert half.token is first.token
    assert later.token.jti != first.token.jti


CLIENT = instances()
GRANT, OTHER, _ = CLIENT.grants
PREPARED = Prepared(GRANT, Anchor("anchor", "anchor-1"), ACCOUNT_UID)
ALLOWED = Allowed(GRANT, "a", 900)


def key(
    client: Client = CLIENT, allowed: Allowed = ALLOWED, prepared: Prepared = PREPARED, by: ProvedBy = BY_SECRET
) -> ShareKey:
    """Return a key, of which tests change one part."""
    return ShareKey.of(client, allowed, prepared, by)


OTHER_KEYS = {
    "client": key(instances(id=ClientId("shop", "another"))),
    "client UID": key(instances(uid="made-again")),
    "generation": key(instances(generation=instances().generation + 1)),
    "when new tokens were asked for": key(instances(rotate_requested=datetime(2026, 1, 1, tzinfo=UTC))),
    "method of the proof": key(by=ProvedBy("publicKeys", "")),
    "subject": key(by=ProvedBy("clientSecret", "somebody")),
    "issuer of the subject": key(by=ProvedBy("clientSecret", "", "https://issuer.example")),
    "account UID": key(prepared=replace(PREPARED, account_uid="account-2")),
    "anchor UID": key(prepared=replace(PREPARED, anchor=Anchor("anchor", "anchor-2"))),
    "grant": key(allowed=replace(ALLOWED, grant=OTHER)),
    "audience": key(allowed=replace(ALLOWED, audience="b")),
    "TTL": key(allowed=replace(ALLOWED, ttl_seconds=901)),
}


@pytest.mark.parametrize("part", OTHER_KEYS)
def test_each_part_of_the_key_tells_tokens_apart(part: str) -> None:
    """What differs in one thing shares no token."""
    assert OTHER_KEYS[part] != key()
    assert key() == key()


OTHER_REQUESTS: dict[str, Callable[[Storm], "asyncio.Task[Issued]"]] = {
    "grant": lambda storm: storm.ask(ask=Ask("other")),
    "audience": lambda storm: storm.ask(ask=Ask("default", None, "b")),
    "TTL": lambda storm: storm.ask(ask=Ask("default", "16m")),
    "proof": lambda storm: storm.ask(by=ProvedBy("certificate", "ab" * 32)),
    "subject": lambda storm: storm.ask(by=ProvedBy("oidc", "somebody", "https://issuer.example")),
}


@pytest.mark.parametrize("what", OTHER_REQUESTS)
async def test_what_is_asked_for_otherwise_is_minted_anew(what: str) -> None:
    """And the same again shares it."""
    storm = await Storm.of(instances())
    first = await storm.ask()
    other = await OTHER_REQUESTS[what](storm)
    same = await OTHER_REQUESTS[what](storm)

    assert [one.token.jti == first.token.jti for one in (other, same)] == [False, False]
    assert other.token is same.token
    assert storm.mints.asked == 2


async def test_the_same_subject_of_two_issuers_is_two() -> None:
    """Each issuer calls its own callers as it likes."""
    storm = await Storm.of(instances())
    one, two = [await storm.ask(by=ProvedBy("oidc", "me", f"https://{name}.example")) for name in "ab"]

    assert one.token.jti != two.token.jti


async def test_callers_whom_nothing_tells_apart_share_nothing() -> None:
    """A JWT may have no subject."""
    storm = await Storm.of(instances())
    nameless = ProvedBy("oidc", "", "https://issuer.example")
    one, two = await storm.ask(by=nameless), await storm.ask(by=nameless)

    assert one.token.jti != two.token.jti
    assert len(storm.shared) == 0


@pytest.mark.parametrize(("bound", "value"), [("MAX_TOKENS", 4), ("MAX_TOKENS_OF_A_CLIENT", 4)])
async def test_no_more_tokens_are_kept_than_there_is_room_for(
    bound: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest goes first, which costs a mint and nothing else."""
    monkeypatch.setattr(shared_tokens, bound, value)
    storm = await Storm.of(instances())
    for number in range(value + 1):
        await storm.ask(ask=Ask("default", f"{600 + number}s"))
    kept = len(storm.shared)
    newest = await storm.ask(ask=Ask("default", f"{600 + value}s"))
    oldest = await storm.ask(ask=Ask("default", "600s"))

    assert kept == value
    assert (newest.reused, oldest.reused) == (True, False)


async def test_a_client_with_many_tokens_pushes_out_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of others."""
    monkeypatch.setattr(shared_tokens, "MAX_TOKENS_OF_A_CLIENT", 4)
    storm = await Storm.of(instances())
    neighbour = instances(id=ClientId("shop", "neighbour"), uid="uid-2")
    await storm.register(neighbour)
    await storm.ask(neighbour)
    for number in range(10):
        await storm.ask(ask=Ask("default", f"{600 + number}s"))

    assert (await storm.ask(neighbour)).reused
    assert len(storm.shared) == 5


async def test_no_timer_is_left_of_a_token_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the new one out of memory before its time, and keep the old one in it."""
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(seconds: float, *args: Any) -> asyncio.TimerHandle:
        timer = call_later(seconds, *args)
        if seconds == REUSE:  # others use the loop, too
            timers.append(timer)
        return timer

    monkeypatch.setattr(loop, "call_later", noted)
    storm = await Storm.of(instances())
    await storm.ask()
    storm.clock.pass_(REUSE)
    await storm.ask()
    left = [timer.cancelled() for timer in timers]
    storm.registry.known.clear()
    storm.shared.changed(CLIENT.id)

    assert left == [True, False]
    assert all(timer.cancelled() for timer in timers)


async def test_a_token_is_in_memory_for_no_longer_than_it_is_handed_out() -> None:
    """Nobody has to ask for it once more."""
    storm = Storm()
    grants = tuple(replace(one, reuse_seconds=1) for one in instances().grants)
    await storm.register(instances(grants=grants))
    storm.mints.open.set()
    await storm.ask()
    kept = len(storm.shared)

    async def gone() -> bool:
        return len(storm.shared) == 0

    await until(gone, what="the token is out of memory")
    assert kept == 1
