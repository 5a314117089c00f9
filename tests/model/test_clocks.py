"""Clocks that are wrong in histories that are rarely drawn: a broker that begins where the clock is wrong."""

from collections.abc import Iterator

import pytest

from tests.model.clients import WEB
from tests.model.crossings import Crossings
from tests.model.machine import NAMES

HOUR = 3600.0


@pytest.fixture
def machine() -> Iterator[Crossings]:
    """Return a world in which a client holds tokens, one of them in Vault, and that has 700 s to go."""
    it = Crossings()
    it.begin((("plain", "reporter"), ("both", "other")), [], 60.0)
    for name in NAMES:
        it.world.ask(name, WEB, "plain")
    it.world.pass_(2.0)
    assert len(it.world.held) == len(NAMES)
    it.end_at(WEB, 700.0)
    yield it
    it.world.close()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_broker_that_starts_with_a_wrong_clock_ends_nothing_before_its_time(machine: Crossings, ahead: float) -> None:
    """Whoever leads has heard the time from the API server before."""
    machine.set_clock("a", ahead, again=False)
    machine.set_clock("b", ahead, again=True)
    machine.world.pass_(300.0)

    assert all(machine.world.kube.accepts(held.value) for held in machine.world.held)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_it_ends_all_in_time(machine: Crossings, ahead: float) -> None:
    """Not an hour later, by the clock that is wrong."""
    machine.set_clock("a", ahead, again=False)
    machine.set_clock("b", ahead, again=True)
    machine.world.pass_(690.0)

    assert not any(machine.world.kube.accepts(held.value) for held in machine.world.held)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_copies_are_renewed_in_time_by_a_wrong_clock(machine: Crossings, ahead: float) -> None:
    """Over three hours the promises are looked at again and again: nothing in Vault expires or ends too early."""
    machine.end_at(WEB, None)
    for name in NAMES:
        machine.set_clock(name, ahead, again=name == NAMES[-1])
    for _ in range(45):
        machine.world.pass_(240.0)

    (versions,) = (len(entry.versions) for entry in machine.world.vault.entries.values())
    assert 3 <= versions <= 6
