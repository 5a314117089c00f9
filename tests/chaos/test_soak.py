"""A soak that is short, so that the long one (``make soak``) works when somebody needs it; and one that has to fail."""

import random

from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import ROTATED
from tests.support.lab import Lab
from tests.support.soak.run import Plan, soak

SECONDS, SEED = 45.0, 6


async def test_short_soak_violates_nothing(harmed: Lab) -> None:
    """Faults happen, clients come and go meanwhile, all invariants are checked after each, and nothing grows."""
    said: list[str] = []
    report = await soak(harmed, Plan(SECONDS, SEED, name="soaked"), said.append)

    assert report.violations == []
    assert report.code == 0
    assert report.checks == report.struck.total() >= 2
    assert all(cycle.took for cycle in report.cycles)
    assert said[0] == f"seed {SEED}"
    assert len(said) == 1 + report.checks
    assert any("megabytes" in line for line in report.lines())


async def test_soak_fails_where_an_invariant_is_violated(harmed: Lab) -> None:
    """Somebody destroys what readers of Vault get, and the soak, which was not told, ends with that and code 1."""
    destroyed: list[int] = []
    said: list[str] = []

    async def destroy(scene: Scene, dice: random.Random) -> None:
        del dice
        app = next(app for app in scene.apps if app.what == ROTATED)
        newest = await app.token()
        assert newest is not None
        await harmed.vault.api("PUT", f"secret/destroy/{app.path}", {"versions": [newest[0]]})
        destroyed.append(newest[0])

    report = await soak(harmed, Plan(SECONDS, SEED, {"a version destroyed": destroy}, "violated"), said.append)

    assert len(destroyed) == 1, "it went on"
    assert report.code == 1
    assert "VIOLATED" in said[-1]
    assert f"{ROTATED}: version {destroyed[0]} was deleted" in "; ".join(report.violations)
    assert any(line.startswith("  VIOLATED: after a version destroyed: ") for line in report.lines())
