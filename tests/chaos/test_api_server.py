"""Faults of the API server."""

from tests.chaos.conftest import Stage
from tests.support.chaos.scene import ISSUE

UNAVAILABLE, TIMEOUT = "503 kubernetes_unavailable", "504 kubernetes_timeout"


async def test_api_server_is_killed_and_started_again(stage: Stage) -> None:
    """Callers are told so at once, and nobody has to start the broker again."""
    async with stage.scene("api-killed", "API server killed, started again") as scene:
        cluster = scene.lab.cluster
        async with scene.fault():
            await cluster.api_server.kill()
            await scene.sees(ISSUE, UNAVAILABLE, times=5)
            cluster.api_server.start()
            await cluster.ready()
        outcome = await scene.healed()

    assert outcome.slowest[ISSUE] < 4
