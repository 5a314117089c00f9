"""A broker whose audit log nobody reads, and one on a machine whose clock is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Stage
from tests.support.chaos.leading import until_replaced
from tests.support.chaos.process import PipeTail, listen, livez
from tests.support.chaos.scene import Scene
from tests.support.chaos.setting import DELIVER, DELIVERED, ISSUE, ROTATED, SINGLE
from tests.support.lab import Lab

UNRECORDED = "503 audit_unavailable"
LAUNCH = "tests.support.chaos.launch"
SOON = 15.0
HOUR = 3600


@pytest.fixture
def tail(harmed: Lab) -> Iterator[PipeTail]:
    """Return the reader of a broker's standard output."""
    made = PipeTail(harmed.folder, "stdout")
    yield made
    made.close()


async def test_standard_output_is_blocked(stage: Stage, tail: PipeTail) -> None:
    """Nothing is handed out while nobody reads the audit log, and who asks is told so at once; probes are answered."""
    program = (LAUNCH, "--stdout", str(tail.pipe))
    async with stage.scene("stdout", program=program, tail=tail, audit={"file": "-"}) as scene:
        async with scene.fault("broker: nobody reads standard output, where the audit log goes"):
            with tail.blocked():
                for what in (ISSUE, SINGLE, DELIVER):
                    await scene.sees(what, UNRECORDED, times=2)
                alive = await livez(scene.broker)
        outcome = await scene.healed()

    assert alive == 200
    assert outcome.slowest[ISSUE] < 2
    assert max(outcome.healed[what] for what in (ISSUE, SINGLE, DELIVER)) < SOON


async def test_the_clock_is_set_by_an_hour(stage: Stage, tmp_path: Path) -> None:
    """Back and forth: copies in Vault are on time, clients hear the right expiry, and proofs fail with their reason."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    async with stage.scene("clock", program=(LAUNCH, "--clock", str(clock)), listen=listen()) as scene:
        for seconds, reason in ((-HOUR, "not_yet_valid"), (HOUR, "expired")):
            async with scene.fault(f"broker: clock set by {seconds:+} s"):
                clock.write_text(str(seconds))
                refused = await _proved(scene)
                metrics = await scene.broker.metrics()
                lasts = await _expires_in(scene)
                await scene.sees(ISSUE, "200", times=10)
                if seconds < 0:  # forwards it would be too often, not too late: test_server_time.py counts
                    await until_replaced(scene)
                clock.write_text("0")
            outcome = await scene.healed()

            assert refused == 401
            assert f'tokenbroker_authentication_failures_total{{reason="{reason}"}} 1.0' in metrics
            assert 880 <= lasts <= 900
            assert set(outcome.seen[ISSUE]) | set(outcome.seen[DELIVERED]) | set(outcome.seen[ROTATED]) <= {"200"}


async def _proved(scene: Scene) -> int:
    """Return the answer to a new token of an account, which is good for ten minutes."""
    token = await scene.lab.cluster.token_for(scene.tenant.namespace, "reader", [scene.broker.url], seconds=600)
    asked = {"client": scene.clients["probe"].id}
    reply = await scene.broker.call("POST", "/v1/tokens", asked, headers={"Authorization": f"Bearer {token}"})
    return reply.status


async def _expires_in(scene: Scene) -> int:
    """Return for how long an OAuth client is told that its token is good, which is 15 minutes."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = await scene.broker.call(
        "POST",
        "/oauth2/token",
        data=b"grant_type=client_credentials",
        headers=headers,
        auth=scene.clients["probe"].auth,
    )
    return int(reply.body["expires_in"])
