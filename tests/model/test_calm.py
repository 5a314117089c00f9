"""A copy is renewed while one replica can, whatever the other one meets; and only then is that asked of them."""

from collections.abc import Iterator

import pytest

from broker.services.rotation.pulse import VaultPulse
from tests.model.calm import Calm
from tests.model.checks import RENEWED_WITHIN, always
from tests.model.clients import TTL, WEB, new_client
from tests.model.replica import Replica
from tests.model.world import World

STEP = 120.0


@pytest.fixture
def world() -> Iterator[World]:
    """Yield a world with two replicas, and a copy."""
    world = World()
    world.start("a")
    world.start("b")
    world.do(lambda: world.kube.apply(new_client(WEB, world.kube.uid(), (("kept", "reporter"),))))
    world.pass_(60.0)
    yield world
    world.close()


CUTS = ["vault from {}", "kube from {}", "lease from {}"]


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("cut", CUTS)
def test_a_copy_is_renewed_though_one_replica_is_cut_off(world: World, cut: str, *, leads: bool) -> None:
    """Of two, whichever led."""
    one = _replica(world, leads=leads)
    world.do(lambda: world.faults.away.add(cut.format(one.name[0])))

    assert _passes(world, TTL) == []


@pytest.mark.parametrize("cut", [["vault from a", "vault from b"], ["vault from a", "kube from b"], ["vault"]])
def test_nothing_is_asked_of_replicas_none_of_which_can(world: World, cut: list[str]) -> None:
    """What is in Vault has expired then; and not for ever: when one of them can again, it has its time for it."""
    world.do(lambda: world.faults.away.update(cut))
    expired = _passes(world, TTL + RENEWED_WITHIN)
    token = next(world.current(path) for path in world.vault.entries)
    dead = token is not None and not world.kube.accepts(token)
    world.do(world.faults.away.clear)

    assert expired == []
    assert dead
    assert _passes(world, TTL) == []


def test_a_leader_that_keeps_the_lead_though_it_does_not_reach_vault_is_found_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one could have renewed the copy."""
    monkeypatch.setattr(VaultPulse, "unfit", False)
    one = _replica(world, leads=True)
    world.do(lambda: world.faults.away.add(f"vault from {one.name[0]}"))

    assert "has expired in Vault" in "".join(_passes(world, TTL + STEP))


def test_calm_is_counted_for_each_replica_by_itself_and_begins_anew_with_each_fault() -> None:
    """Two who could for half of the time each are none who could for all of it."""
    calm = Calm()
    for now, able, hit_at in ((0, "a", 0), (50, "a", 0), (60, "b", 0), (110, "b", 0), (160, "b", 130), (170, "", 130)):
        calm.look(now, able, hit_at)

    assert calm.lasted(0, 200) == 50
    assert calm.lasted(70, 200) == 40
    assert calm.lasted(120, 200) == 30
    assert Calm().lasted(0, 1) == 0


def _replica(world: World, *, leads: bool) -> Replica:
    return next(it for it in world.replicas.values() if it.leading is leads)


def _passes(world: World, seconds: float) -> list[str]:
    """Return what is wrong while time passes."""
    found: list[str] = []
    for _ in range(int(seconds / STEP)):
        world.pass_(STEP)
        found += always(world)
    return found
