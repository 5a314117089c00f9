"""``tokenbroker token get --watch`` as a sidecar, against a real broker and a real cluster."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import yaml

from tests.support.broker import BrokerProcess, Tenant
from tests.support.federated import Federated
from tests.support.kubectl import Kubectl
from tests.support.lab import Lab
from tests.support.processes import until


async def test_a_sidecar_keeps_a_kubeconfig(
    broker: BrokerProcess, tenant: Tenant, installed: Lab, tmp_path: Path
) -> None:
    """The file works in kubectl, the command was run, SIGTERM ends it with 0, and nothing was said of the token."""
    client = await tenant.ready_client("caller")
    (tmp_path / "secret").write_text(client.secret)
    file, log = tmp_path / "kubeconfig", tmp_path / "log"
    options = ["--url", broker.url, "--client", client.id, "--secret-file", str(tmp_path / "secret")]
    options += ["-o", "kubeconfig", "--watch", "--output-file", str(file), "--exec", f"date >> {log}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "token", "get", *options), env=clean(), stdout=PIPE, stderr=PIPE
    )

    async def written() -> bool:
        return log.exists()

    await until(written, what="the command was run")
    listed = await installed.cluster.kubectl.with_kubeconfig(file)("get", "pods", "-o", "name")
    process.send_signal(signal.SIGTERM)
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    token = yaml.safe_load(file.read_text())["users"][0]["user"]["token"]

    assert isinstance(installed.cluster.kubectl, Kubectl)
    assert listed == ""
    assert (process.returncode, output) == (0, b"")
    assert b"is good for 15m" in errors
    assert token.encode() not in errors


def clean() -> dict[str, str]:
    """Return the environment without what the command would read."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOKENBROKER_")}


async def test_a_jwt_is_a_proof_here_too(federated: Federated, tmp_path: Path) -> None:
    """A pod's projected token, as a file that the kubelet replaces."""
    jwt, file = tmp_path / "jwt", tmp_path / "token.json"
    jwt.write_text(await federated.account_token() + "\n")
    options = ["--url", federated.broker.url, "--client", "federated/pod", "--jwt-file", str(jwt)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "token", "get", *options, "-o", "json", "--output-file", str(file)),
        env=clean(),
        stderr=PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 0, errors
    assert json.loads(file.read_text())["subject"] == "system:serviceaccount:federated:reader"


async def test_options_that_make_no_sense_together(broker: BrokerProcess) -> None:
    """A watch without a file, a command without a watch, two proofs: said before anybody is asked."""
    start = [sys.executable, "-m", "broker", "token", "get", "--url", broker.url, "--client", "a/b"]
    for options in (["--watch"], ["--exec", "true"], ["--jwt-file", "x", "--secret-file", "y"]):
        process = await asyncio.create_subprocess_exec(*start, *options, env=clean(), stderr=PIPE)
        await process.communicate()
        assert process.returncode == 2, options
