"""Statuses that tell of nothing but copies in Vault are written no faster than the API server bears."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import BrokerError, Fault, Reason
from broker.model.former_grants import FormerGrant
from broker.model.status import camel
from broker.model.vault_status import VaultFacts
from broker.services.board import RECHECK_SECONDS
from broker.services.rush import LONGEST_SECONDS
from broker.services.status_pace import ROUTINE_BURST, ROUTINE_QPS
from tests.support.rotation import KEY, HandClock, client
from tests.unit.test_board import Bench

NOW = HandClock().now()


class Renewed(Bench):
    """A board and a client whose copy in Vault is renewed again and again."""

    def __init__(self) -> None:
        super().__init__(grants=client().grants)
        self.version = 0

    async def renew(self, fault: Fault | None = None) -> float | None:
        """Note the next version, and let the board write; what it has written is what the resource says then."""
        self.version += 1
        ahead = timedelta(hours=12, seconds=self.version)
        facts = VaultFacts("secret/x", self.version, NOW + ahead, NOW + ahead, 3600, fault)
        self.board.rehearsed(KEY.client, "default", None, None)
        self.board.vault(KEY.client, "default", facts)
        return await self.write()

    async def write(self) -> float | None:
        """Let the board write."""
        wait = await self.board.write(KEY.client)
        known = self.registry.known[KEY.client]
        self.registry.known[KEY.client] = replace(known, status=self.shown.status)
        return wait

    async def in_turn(self) -> None:
        """Let the board write when the client's turn has come."""
        self.clock.pass_(1)
        await self.write()

    def written(self) -> int:
        """Return the version that the status shows."""
        version: int = self.shown.status["grants"][0]["vault"]["version"]
        return version


async def test_after_a_burst_they_are_written_one_after_the_other() -> None:
    """Each in its turn, with what is known by then."""
    bench = Renewed()
    waits = [await bench.renew() for _ in range(ROUTINE_BURST + 1)]  # the first tells that the client is ready
    wait = await bench.renew()
    before = bench.written()
    await bench.in_turn()

    assert set(waits) == {RECHECK_SECONDS}
    assert wait == pytest.approx(1 / ROUTINE_QPS)
    assert before == ROUTINE_BURST + 1
    assert bench.written() == bench.version == ROUTINE_BURST + 2


async def test_whoever_waits_has_one_turn() -> None:
    """A status that was written in its turn waits again for the next one."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()
    await bench.in_turn()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()

    assert (await bench.renew() or 0) < RECHECK_SECONDS


async def test_an_outage_of_vault_that_concerns_all_is_told_in_turn() -> None:
    """And so is its end: ten thousand statuses would hold up all that have tokens to be issued."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()

    assert (await bench.renew(Fault(Reason.VAULT_UNAVAILABLE, "sealed")) or 0) < RECHECK_SECONDS


async def test_an_outage_that_concerns_few_is_told_at_once() -> None:
    """As all that is no mass."""
    bench = Renewed()
    await bench.renew()
    await bench.renew(Fault(Reason.VAULT_DENIED, "denied"))

    assert bench.condition("VaultSynced") == ("False", "VaultDenied")


async def test_news_of_a_client_does_not_wait() -> None:
    """Whoever gets no token any more is told of at once."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()
    bench.board.rehearsed(KEY.client, "default", Fault(Reason.SERVICE_ACCOUNT_MISSING, "gone"), None)

    assert await bench.write() == RECHECK_SECONDS
    assert bench.condition("Ready") == ("False", "ServiceAccountMissing")


async def test_whoever_goes_while_it_waits_takes_no_memory() -> None:
    """Its turn is forgotten with it."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()
    waited = KEY.client in bench.board._pace._turns
    bench.board.forget(KEY.client)

    assert waited
    assert not bench.board._pace._turns


async def test_whoever_is_renewed_again_while_it_waits_is_written_no_sooner() -> None:
    """Else each mass that follows another would be written at once."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()
    before = bench.written()
    await bench.renew()
    await bench.renew()

    assert bench.written() == before


async def test_good_news_of_copies_stands_back_while_many_are_due() -> None:
    """It is not even worked out: that is work for each of them, while they wait."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    stood_back = await bench.renew()
    during = bench.written()
    bench.rush.late = lambda: 0.0
    await bench.write()

    assert stood_back == RECHECK_SECONDS
    assert (during, bench.written()) == (1, 2)


@pytest.mark.parametrize("fault", [Reason.VAULT_DENIED, Reason.VAULT_PATH_TAKEN])
async def test_bad_news_of_a_copy_does_not_stand_back(fault: Reason) -> None:
    """However many are due."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    await bench.renew(Fault(fault, "no"))

    assert bench.condition("VaultSynced") == ("False", camel(fault))


async def test_other_news_does_not_stand_back_while_many_copies_are_due() -> None:
    """Of a trial, of what is suspended, and of a registration that changed."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    bench.board.rehearsed(KEY.client, "default", Fault(Reason.SERVICE_ACCOUNT_MISSING, "gone"), None)
    await bench.write()
    tried = bench.condition("Ready")
    known = bench.registry.known[KEY.client]
    bench.registry.known[KEY.client] = replace(known, client=client(suspended=True))
    bench.board.withheld(KEY.client, [])
    await bench.write()

    assert tried == ("False", "ServiceAccountMissing")
    assert bench.condition("Ready") == ("False", "Suspended")


async def test_news_that_could_not_be_written_is_news_still() -> None:
    """Where the API server failed."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    bench.board.rehearsed(KEY.client, "default", Fault(Reason.SERVICE_ACCOUNT_MISSING, "gone"), None)
    bench.shown.failure = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
    with pytest.raises(BrokerError):
        await bench.board.write(KEY.client)
    bench.shown.failure = None
    await bench.write()

    assert bench.condition("Ready") == ("False", "ServiceAccountMissing")


async def test_trouble_that_could_not_be_written_is_news_until_it_is_over() -> None:
    """And when it was written, it is none."""
    bench = Renewed()
    pace = bench.board._pace
    await bench.renew()
    bench.rush.late = lambda: 60.0
    bench.shown.failure = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
    with pytest.raises(BrokerError):
        await bench.renew(Fault(Reason.VAULT_DENIED, "denied"))
    unwritten = pace._is_news(KEY.client)
    bench.shown.failure = None
    await bench.write()
    written = pace._is_news(KEY.client)
    bench.shown.failure = BrokerError(Reason.KUBERNETES_UNAVAILABLE, "away")
    with pytest.raises(BrokerError):
        await bench.renew(Fault(Reason.VAULT_WRITE_CONFLICT, "conflict"))
    stood_back = await bench.renew()

    assert (unwritten, written) == (True, False)
    assert bench.condition("VaultSynced") == ("False", "VaultDenied")
    assert stood_back == RECHECK_SECONDS


async def test_a_registration_that_changed_does_not_stand_back_though_nothing_else_is_new() -> None:
    """Whoever waits for what was applied sees that it was taken note of."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    known = bench.registry.known[KEY.client]
    bench.registry.known[KEY.client] = replace(known, generation=2, client=client(generation=2))
    await bench.write()

    assert bench.shown.status["observedGeneration"] == 2


async def test_that_tokens_are_being_ended_does_not_stand_back() -> None:
    """Nor that they may be had again."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    known = bench.registry.known[KEY.client]
    bench.registry.known[KEY.client] = replace(known, client=client(suspended=True))
    bench.board.withholding(KEY.client)
    await bench.write()
    ending = bench.condition("Ready")
    known = bench.registry.known[KEY.client]
    bench.registry.known[KEY.client] = replace(known, client=client())
    bench.board.resumed(KEY.client)
    await bench.write()

    assert ending == ("False", "Suspending")
    assert bench.condition("Ready") != ending


async def test_that_the_tokens_of_a_former_grant_have_ended_does_not_stand_back() -> None:
    """It is listed until then."""
    bench = Renewed()
    await bench.renew()
    former = {"name": "former", "subject": "system:serviceaccount:shop:reporter"}
    known = bench.registry.known[KEY.client]
    listed = {**known.status, "grants": [*known.status["grants"], former]}
    bench.registry.known[KEY.client] = replace(known, status=listed)
    bench.shown.status = listed
    bench.rush.late = lambda: 60.0
    bench.board.ended(KEY.client, [FormerGrant("former", "reporter")])
    await bench.board.write(KEY.client)

    names = [[one["name"] for one in status["grants"]] for status in (listed, bench.shown.status)]
    assert names == [["default", "former"], ["default"]]


async def test_bad_news_that_has_to_wait_for_its_turn_is_bad_news_still_when_that_comes() -> None:
    """Else it stood back with the good."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()
    bench.rush.late = lambda: 60.0
    wait = await bench.renew(Fault(Reason.VAULT_WRITE_CONFLICT, "no")) or 0.0
    before = bench.condition("VaultSynced")
    bench.clock.pass_(wait)
    await bench.write()

    assert 0 < wait < 1
    assert before == ("True", "Synced")
    assert bench.condition("VaultSynced") == ("False", "VaultWriteConflict")


async def test_news_from_before_all_is_known_is_news_still_when_it_is() -> None:
    """As that from before this replica leads."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    bench.leader.leading = False
    bench.board.rehearsed(KEY.client, "default", Fault(Reason.SERVICE_ACCOUNT_MISSING, "gone"), None)
    await bench.write()
    before = bench.condition("Ready")
    bench.leader.leading = True
    await bench.write()

    assert before == ("True", "Ready")
    assert bench.condition("Ready") == ("False", "ServiceAccountMissing")


@pytest.mark.parametrize("pace", [1.0, 17.0, 30.0, 60.0, 2 * LONGEST_SECONDS])
async def test_no_status_stands_back_for_longer_than_a_rush_lasts(pace: float) -> None:
    """However long copies are late, and whoever else asks a moment before: a look of the same visit does."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    shown, ages = bench.clock.monotonic(), list[float]()
    while len(ages) < 10:
        bench.clock.pass_(pace)
        assert bench.rush.on in (True, False)
        bench.clock.pass_(0.001)
        before = bench.written()
        await bench.renew()
        if bench.written() > before:
            ages.append(bench.clock.monotonic() - shown)
            shown = bench.clock.monotonic()

    assert max(ages) <= LONGEST_SECONDS + 2 * pace + 1


async def test_a_client_stands_back_by_its_own_time() -> None:
    """Where it is asked about only while there is a rush, the others' pauses are of no use to it."""
    bench = Renewed()
    await bench.renew()
    waits = []
    for seconds in (0.0, LONGEST_SECONDS - 10, 10.0):
        bench.rush.late = lambda: 0.0
        bench.clock.pass_(seconds)
        assert not bench.rush.on
        bench.rush.late = lambda: 60.0
        waits.append(await bench.renew())
    last = bench.written()
    again = await bench.renew()

    assert waits == [RECHECK_SECONDS, pytest.approx(10), RECHECK_SECONDS]
    assert last == bench.version - 1
    assert (again, bench.written()) == (RECHECK_SECONDS, last)


async def test_whoever_goes_while_it_stands_back_takes_no_memory() -> None:
    """Nor does its news."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    await bench.renew()
    stood_back = KEY.client in bench.board._pace._stood_back
    bench.board.rehearsed(KEY.client, "default", Fault(Reason.SERVICE_ACCOUNT_MISSING, "gone"), None)
    bench.board.forget(KEY.client)

    assert stood_back
    assert not bench.board._pace._stood_back
    assert not bench.board._pace._news


async def test_trouble_of_a_copy_that_is_over_before_it_was_told_is_no_news() -> None:
    """After Vault has refused all, ten thousand statuses that were to tell so would hold up the copies."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()
    waits = [await bench.renew(Fault(Reason.VAULT_DENIED, "no policy")) or 0]
    bench.rush.late = lambda: 60.0
    bench.clock.pass_(LONGEST_SECONDS)
    before = bench.written()
    waits.append(await bench.renew() or 0)

    assert 0 < waits[0] < 1
    assert waits[1] == RECHECK_SECONDS
    assert bench.written() == before
    assert not bench.board._pace._troubles


async def test_that_vault_was_away_stands_back_while_copies_are_renewed() -> None:
    """It is there again, or there would be no rush; the next visit of the copy tells."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    stood_back = await bench.renew(Fault(Reason.VAULT_UNAVAILABLE, "sealed"))
    during = bench.condition("VaultSynced")
    bench.rush.late = lambda: 0.0
    await bench.write()

    assert stood_back == RECHECK_SECONDS
    assert during == ("True", "Synced")
    assert bench.condition("VaultSynced") == ("False", "VaultUnavailable")


async def test_trouble_of_one_copy_is_news_though_that_of_another_is_over() -> None:
    """Each grant's is told by itself."""
    bench = Renewed()
    pace, registration = bench.board._pace, bench.registry.known[KEY.client]
    bench.rush.late = lambda: 60.0
    pace.copy_is(KEY.client, "default", good=False)
    pace.copy_is(KEY.client, "other", good=False)
    pace.copy_is(KEY.client, "default", good=True)
    one_left = pace._is_news(registration.id)
    pace.copy_is(KEY.client, "other", good=True)

    assert one_left
    assert not pace._is_news(registration.id)


async def test_trouble_of_whoever_goes_takes_no_memory() -> None:
    """It is forgotten with him."""
    bench = Renewed()
    bench.board._pace.copy_is(KEY.client, "default", good=False)
    bench.board.forget(KEY.client)

    assert not bench.board._pace._troubles


async def test_a_status_that_was_overtaken_keeps_its_turn() -> None:
    """It has waited already."""
    bench = Renewed()
    for _ in range(ROUTINE_BURST + 2):
        await bench.renew()
    bench.clock.pass_(1)
    bench.shown.version = "2"
    await bench.write()
    asked, before = bench.shown.asked, bench.written()
    for _ in range(2 * ROUTINE_BURST):
        bench.board._pace._routine.reserve(1)
    bench.sees("2")
    await bench.write()

    assert before < bench.version
    assert (bench.written(), bench.shown.asked) == (ROUTINE_BURST + 2, asked + 1)


async def test_news_that_was_overtaken_is_news_still() -> None:
    """It does not stand back while many copies are due."""
    bench = Renewed()
    await bench.renew()
    bench.rush.late = lambda: 60.0
    bench.shown.version = "2"
    await bench.renew(Fault(Reason.VAULT_DENIED, "denied"))
    bench.sees("2")
    await bench.write()

    assert bench.condition("VaultSynced") == ("False", "VaultDenied")


async def test_whoever_goes_while_a_status_is_overtaken_takes_no_memory() -> None:
    """Nor does what was heard of since."""
    bench = Renewed()
    bench.shown.version = "2"
    await bench.renew()
    marked = bool(bench.board._overtaken._marks)
    bench.board.forget(KEY.client)

    assert marked
    assert not bench.board._overtaken._marks
