"""Whether Vault is in reach, and whether something that was there has gone."""

from structlog.testing import capture_logs

from broker.errors import Reason
from broker.services.rotation.pulse import EVERY_SECONDS, FIT_SECONDS, UNFIT_SECONDS, NoVault, VaultPulse
from broker.vault.answer import denied, unavailable
from tests.support.fake_vault import Entry, FakeVault
from tests.support.rotation import PLACE, HandClock


class Told:
    """Implements PulseMetrics, and hears what is lost."""

    def __init__(self) -> None:
        self.asked: list[Reason | None] = []
        self.lost: list[list[str]] = []

    def vault_asked(self, failure: Reason | None) -> None:
        """Keep it."""
        self.asked.append(failure)


class Desk:
    """A pulse, its Vault and its clock."""

    def __init__(self) -> None:
        self.vault, self.clock, self.told = FakeVault(), HandClock(), Told()
        self.pulse = VaultPulse(store=self.vault, place=PLACE, clock=self.clock, metrics=self.told)
        self.pulse.lost = lambda namespaces: self.told.lost.append(sorted(namespaces))

    def keeps(self, *namespaces: str) -> None:
        """Let these namespaces have a copy, and no others."""
        self.vault.entries = {(*PLACE.root, name, "reporter", "default"): Entry() for name in namespaces}


async def test_what_was_there_and_is_no_more_is_told_once() -> None:
    """All together, of a Vault that lost its data, or a part of it; what comes back, or is new, is no news."""
    desk = Desk()
    desk.keeps("shop", "ci", "web")
    await desk.pulse.beat()
    desk.keeps("ci", "other")
    await desk.pulse.beat()
    first = list(desk.told.lost)
    await desk.pulse.beat()
    desk.keeps()
    await desk.pulse.beat()

    assert first == [["shop", "web"]]
    assert desk.told.lost == [["shop", "web"], ["ci", "other"]]


async def test_what_was_lost_while_vault_was_away_is_told() -> None:
    """What was seen before it failed is remembered."""
    desk = Desk()
    desk.keeps("shop")
    await desk.pulse.beat()
    desk.vault.fault = unavailable("sealed")
    await desk.pulse.beat()
    desk.vault.fault = denied("nobody has configured it")
    desk.keeps()
    await desk.pulse.beat()
    meanwhile = list(desk.told.lost)
    desk.vault.fault = None
    await desk.pulse.beat()

    assert meanwhile == []
    assert desk.told.lost == [["shop"]]
    assert desk.told.asked == [None, Reason.VAULT_UNAVAILABLE, Reason.VAULT_DENIED, None]


async def test_a_replica_is_fit_for_some_time_after_an_answer_and_unfit_long_after() -> None:
    """In between it leads on, and does not offer to."""
    desk = Desk()
    seen = [(desk.pulse.fit, desk.pulse.unfit)]
    await desk.pulse.beat()
    desk.vault.fault = unavailable("cut off")
    for seconds in (FIT_SECONDS - 1, 1, UNFIT_SECONDS - FIT_SECONDS):
        desk.clock.pass_(seconds)
        await desk.pulse.beat()
        seen.append((desk.pulse.fit, desk.pulse.unfit))
    desk.vault.fault = None
    await desk.pulse.beat()
    seen.append((desk.pulse.fit, desk.pulse.unfit))

    assert seen == [(False, False), (True, False), (False, False), (False, True), (True, False)]


async def test_a_standby_that_only_reads_is_no_vault_to_lead_with() -> None:
    """Once somebody got no answer a listing is not enough: copies are left alone, and another replica may lead."""
    desk = Desk()
    desk.keeps("shop")
    desk.vault.standby = error = unavailable("no server is active")
    await desk.pulse.beat()
    await desk.pulse.beat(doubted=True)
    desk.clock.pass_(UNFIT_SECONDS)
    await desk.pulse.beat()
    seen = (desk.pulse.away, desk.pulse.fit, desk.pulse.unfit)
    desk.vault.standby = None
    await desk.pulse.beat()

    assert seen == (error, False, True)
    assert desk.told.asked == [None, Reason.VAULT_UNAVAILABLE, Reason.VAULT_UNAVAILABLE, None]


async def test_a_replica_that_never_reached_vault_is_unfit_in_the_end() -> None:
    """Counted from its start."""
    desk = Desk()
    desk.vault.fault = unavailable("cut off")
    await desk.pulse.beat()
    desk.clock.pass_(UNFIT_SECONDS)

    assert desk.pulse.unfit


async def test_a_failure_that_lasts_is_logged_once_and_its_end_too() -> None:
    """A Vault that is away for days fills no log."""
    desk = Desk()
    with capture_logs() as logs:
        for fault in (unavailable("sealed"), unavailable("sealed"), denied("policy"), None, None):
            desk.vault.fault = fault
            await desk.pulse.beat()

    assert [(line["event"], line.get("reason")) for line in logs] == [
        ("vault.not_reached", "vault_unavailable"),
        ("vault.not_reached", "vault_denied"),
        ("vault.reached_again", None),
    ]


def test_without_vault_nobody_is_better_than_another() -> None:
    """Nothing changes hands for its sake."""
    assert (NoVault.fit, NoVault.unfit) == (False, False)


def test_where_vault_is_away_for_all_no_replica_takes_the_lead_from_another() -> None:
    """Whoever was answered last is not fit any more when the one that was answered first is unfit."""
    assert 2 * EVERY_SECONDS <= FIT_SECONDS
    assert FIT_SECONDS + 2 * EVERY_SECONDS < UNFIT_SECONDS
