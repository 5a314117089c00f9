"""docs/compromise.md, run line by line: after each way to stop something, what was stolen is worth nothing."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from tests.support.broker import ACCOUNT, CONFIG, ROOT, BrokerProcess, Registered, Tenant
from tests.support.installed import install
from tests.support.kept import Kept
from tests.support.kubebox import kubebox
from tests.support.lab import Lab
from tests.support.openbao import bao
from tests.support.pages import blocks, moved
from tests.support.processes import until

PAGE = "compromise.md"
PROMISED_SECONDS = 15.0


@dataclass
class Night:
    """A cluster of its own, in which things get stolen, and somebody with the page in front of him."""

    lab: Lab
    broker: BrokerProcess
    tenant: Tenant
    client: Registered
    folder: Path

    async def run(self, name: str, **places: str) -> str:
        """Run a block of the page as it stands, but for the places that are named, and return what it printed."""
        (block,) = blocks(PAGE, f"sh {name}")
        process = await asyncio.create_subprocess_exec(
            *("sh", "-euc", moved(block, places)), cwd=self.folder, env=self._environment(), stdout=PIPE, stderr=PIPE
        )
        output, errors = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def token(self) -> str:
        """Get a token as the client would, as soon as there is one, and see that it works."""

        async def issued() -> bool:
            return (await self.broker.call("POST", "/v1/tokens", {}, auth=self.client.auth)).status == 200

        await until(issued, what="the client is served", programs=(self.broker.program,))
        token = str((await self.broker.call("POST", "/v1/tokens", {}, auth=self.client.auth)).body["token"])
        assert await self.works(token)
        return token

    @property
    def kept(self) -> Kept:
        """The client's copy in Vault."""
        return Kept(self.lab, self.tenant, self.client.id.partition("/")[2])

    async def works(self, token: str) -> bool:
        """Tell whether the API server lets the bearer in."""
        status, _ = await self.lab.cluster.request("GET", "/api/v1/namespaces/shop/pods", token=token)
        return status != 401

    async def until_refused(self, *tokens: str) -> None:
        """Wait until none of the tokens works any more, for as long as is promised."""

        async def refused() -> bool:
            return not any([await self.works(token) for token in tokens])

        await until(refused, what="what was stolen is refused", seconds=PROMISED_SECONDS)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.lab.cluster.kubeconfig),
            "VAULT_ADDR": self.lab.vault.address,
            "BAO_ADDR": self.lab.vault.address,
            "BAO_CACERT": str(self.lab.vault.ca_file),
            "BAO_TOKEN": self.lab.vault.root_token,
        }


def _programs(folder: Path, broker: BrokerProcess) -> None:
    """Put what the page calls into a folder, and the audit log where it says."""
    for name, line in {
        "kubectl": f'exec "{kubebox()}" kubectl "$@"',
        "tokenbroker": f'exec "{sys.executable}" -m broker "$@"',
        "vault": f'exec "{bao()}" "$@"',
    }.items():
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    (folder / "audit.jsonl").symlink_to(broker.audit_file)


@asynccontextmanager
async def _night(folder: Path) -> AsyncIterator[Night]:
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        async with BrokerProcess.start(lab) as broker:
            _programs(folder, broker)
            tenant = await Tenant.create(lab.cluster, "shop")
            client = await tenant.ready_client("reporter", account="reporter", vault={"ttl": "1h"})
            yield Night(lab, broker, tenant, client, folder)


@pytest_asyncio.fixture(loop_scope="session")
async def night(tmp_path: Path) -> AsyncIterator[Night]:
    """Start everything anew: what follows harms the whole cluster."""
    async with _night(tmp_path) as running:
        yield running


async def test_everything_that_was_stolen_is_stopped_as_the_page_says(night: Night) -> None:
    """One story, section by section: the page's lines, and then the API server's word on what was stolen."""
    await _client_secret(night)
    await _client_without_a_broker(night)
    await _token(night)
    await _copy_in_vault(night)
    await _vault_login(night)
    await _namespace(night)
    await _broker(night)


async def _client_secret(night: Night) -> None:
    await until(night.kept.there, what="Vault holds a token")
    stolen, kept = await night.token(), (await night.kept.newest())[1]
    await night.run("stop-client")
    await night.until_refused(stolen, kept)
    assert f"\t{_jti(night)}\n" in await night.run("see-client")

    secret = night.folder / "new.secret"
    await night.run("mend-client", **{"reporter-new.secret": str(secret)})
    old, night.client = night.client, Registered(night.client.id, secret.read_text().strip())
    await night.token()
    assert (await night.broker.call("POST", "/v1/tokens", {}, auth=old.auth)).status == 401


async def _client_without_a_broker(night: Night) -> None:
    """Follow the page where a suspension ended with code 4, as tests/integration/test_cli_suspend.py has it."""
    stolen, kept = await night.token(), (await night.kept.newest())[1]
    await night.broker.program.stop()
    await night.tenant.patch("reporter", {"suspend": True})
    await night.run("stop-client-without-a-broker")
    await night.until_refused(stolen, kept)
    night.broker.program.start()
    await night.broker.ready()
    await night.tenant.patch("reporter", {"suspend": None})


def _jti(night: Night) -> str:
    issued = (it for it in night.broker.records(night.client.id) if it["event"] == "token.issued")
    return str(next(it["jti"] for it in issued if it["delivery"] == "response"))


async def _token(night: Night) -> None:
    stolen = await night.token()
    await night.run("stop-tokens")
    await night.until_refused(stolen)
    await night.token()


async def _copy_in_vault(night: Night) -> None:
    version, stolen = await night.kept.newest()
    await night.run("stop-vault-copy")
    await night.until_refused(stolen)

    async def replaced() -> bool:
        newer, token = await night.kept.newest()
        return newer > version and await night.works(token)

    await until(replaced, what="Vault has a version that works")


async def _vault_login(night: Night) -> None:
    await night.run("stop-vault-login")
    delivered = await night.broker.call("POST", "/v1/tokens", {"deliver": "vault"}, auth=night.client.auth)
    assert delivered.status == 200, delivered.body


async def _namespace(night: Night) -> None:
    stolen, kept = await night.token(), (await night.kept.newest())[1]
    await night.run("stop-namespace")
    await night.until_refused(stolen, kept)
    refused = await night.broker.call("POST", "/v1/tokens", {}, auth=night.client.auth)
    assert (refused.status, refused.body["code"]) == (403, "grant_forbidden")
    await night.lab.cluster.kubectl("label", "namespace", "shop", "tokenbroker.dev/clients=enabled")


async def _broker(night: Night) -> None:
    handed_out, own = await night.token(), night.folder / "stolen"
    own.write_text(await night.lab.cluster.token_for(*ACCOUNT))
    await night.run("stop-broker")
    await night.until_refused(handed_out, own.read_text())

    overlay = ROOT / "tests" / "deploy"
    await night.lab.cluster.kubectl("apply", "-k", str(overlay))
    (night.broker.folder / "token").write_text(await night.lab.cluster.token_for(*ACCOUNT))
    vault_token = await night.lab.cluster.token_for(*ACCOUNT, audiences=["vault"])
    (night.broker.folder / "vault-token").write_text(vault_token)
    assert (night.broker.folder / CONFIG).exists()
    await night.broker.program.stop()
    night.broker.program.start()
    await night.broker.ready()
    await night.token()


def test_the_page_mends_the_broker_as_an_operator_would() -> None:
    """The overlay is the operator's own, and pods start again by themselves: these lines are read, not run."""
    (block,) = blocks(PAGE, "sh mend-broker")

    assert block.splitlines() == [
        "kubectl apply -k deploy/overlays/yours",
        "kubectl rollout restart deployment/tokenbroker -n tokenbroker",
    ]
