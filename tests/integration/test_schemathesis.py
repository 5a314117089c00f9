"""Requests that a program makes up from openapi.yaml, at the running broker, held against all its checks."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from tests.support.broker import ROOT
from tests.support.federated import Federated

CONFIG = Path(__file__).with_name("schemathesis.toml")
SEED = 20261124
EXAMPLES = 40
SECONDS = 30
"""Of fuzzing; the examples and the edges of every schema come before that, and are bounded by themselves."""


async def test_no_made_up_request_finds_a_difference(federated: Federated, tmp_path: Path) -> None:
    """With a valid client: every answer is promised, nothing is a 5xx, and what must be refused is refused."""
    client = await federated.tenant.client("made-up", {"serviceAccount": {"name": "reader"}})
    await federated.until_ready("made-up")
    options = ["--url", federated.broker.url, "--auth", ":".join(client.auth), "--checks", "all", "--mode", "all"]
    options += ["--phases", "examples,coverage,fuzzing,stateful", "--seed", str(SEED), "--no-color"]
    options += ["--max-examples", str(EXAMPLES), "--max-time", str(SECONDS), "--workers", "1", "--warnings", "off"]
    program = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)]
    command = [*program, "run", str(ROOT / "openapi.yaml"), *options]
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=PIPE, stderr=STDOUT)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 8 * SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    said = output.decode().replace(client.secret, "***")

    assert process.returncode == 0, said[-6000:]
