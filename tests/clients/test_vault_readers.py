"""Programs that read from Vault, configured as docs/connect says, while the token there is replaced again and again."""

import asyncio
import base64
import json
import os
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from tests.support import crds
from tests.support.broker import BrokerProcess, Tenant
from tests.support.command import Ended, command_with
from tests.support.kubectl import KubectlError
from tests.support.lab import Lab
from tests.support.openbao import bao
from tests.support.pages import blocks, moved, typed_commands
from tests.support.processes import Program, until
from tests.support.readers import VaultReader

AGENT, EXTERNAL_SECRETS, ARGOCD = "connect/vault-agent.md", "connect/external-secrets.md", "connect/argocd.md"
PODS = "/api/v1/namespaces/shop/pods"
REPLACEMENTS = 50
PROD, LAB = "tokenbroker/prod/", "tokenbroker/lab/"


@dataclass(frozen=True, slots=True)
class Reader:
    """The machine of a reader: a folder with its login in Vault, and the client that is kept there."""

    lab: Lab
    broker: BrokerProcess
    tenant: Tenant
    folder: Path

    async def sh(self, script: str, *program: str, **environment: str) -> Ended:
        """Run lines in the folder: of shell, or of another program."""
        process = await asyncio.create_subprocess_exec(
            *(program or ("sh", "-euc", script)),
            cwd=self.folder,
            env={"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(self.folder), **environment},
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(script.encode() if program else b""), 60)
        return Ended(process.returncode or 0, output.decode(), errors.decode())

    def here(self, block: str) -> str:
        """Return a block with the addresses of the lab."""
        return moved(block, {"https://vault.example:8200": self.lab.vault.address, PROD: LAB})

    async def version(self) -> int:
        """Return the number of the version in Vault."""
        status, answer = await self.lab.vault.api("GET", f"secret/metadata/{LAB}shop/reporter/default")
        return int(answer["data"]["current_version"]) if status == 200 else 0

    async def replace(self) -> None:
        """Have the token replaced, by a change of the grant: nobody can ask for it as a client without a secret."""
        before = await self.version()
        ttl = ("12h", "11h")[before % 2]
        grant = {"name": "default", "serviceAccount": {"name": "reporter"}, "vault": {"ttl": ttl, "renewBefore": "4h"}}
        await self.tenant.patch("reporter", {"grants": [grant]})

        async def replaced() -> bool:
            return await self.version() > before

        await until(replaced, what="another version", programs=(self.broker.program,))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(
    broker: BrokerProcess, installed: Lab, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Reader]:
    """Do what the page on Vault Agent says first, as an admin of Vault and of the namespace."""
    folder = tmp_path_factory.mktemp("vault-reader")
    (folder / "bin").mkdir()
    (folder / "bin" / "vault").symlink_to(bao())
    (folder / "vault-ca.crt").write_bytes(installed.vault.ca_file.read_bytes())
    made = Reader(installed, broker, await Tenant.create(installed.cluster, "shop"), folder)
    add, prepare = blocks(AGENT, "sh")[:2]
    await register(installed, add)

    async def kept() -> bool:
        return await made.version() > 0

    await until(kept, what="the token is in Vault", programs=(broker.program,))
    admin = {"VAULT_ADDR": installed.vault.address, "VAULT_CACERT": str(installed.vault.ca_file)}
    prepared = await made.sh(moved(prepare, {PROD: LAB}), **admin, VAULT_TOKEN=installed.vault.root_token)
    assert prepared.code == 0, prepared.stderr
    yield made


async def register(lab: Lab, block: str) -> None:
    """Type the command of a page that registers a client."""
    (words,) = typed_commands(block)
    added = await command_with(lab.cluster.kubeconfig, *words[1:])
    assert added.code == 0, added.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent(reader: Reader) -> AsyncIterator[Program]:
    """Run the agent with the page's configuration; it looks each second, and not every 4 hours."""
    (page,) = blocks(AGENT, "hcl")
    places = {"/etc/vault-agent": str(reader.folder), "/run/tokenbroker": str(reader.folder), '"4h"': '"1s"'}
    config = reader.folder / "agent.hcl"
    config.write_text(moved(reader.here(page), places))
    running = reader.lab.processes.program("vault-agent", [bao(), "agent", f"-config={config}"])
    running.start()
    try:
        yield running
    finally:
        await running.kill()


def rendered(reader: Reader) -> str:
    """Return the token in the file that the agent writes."""
    config = yaml.safe_load((reader.folder / "kubeconfig").read_text())
    return str(config["users"][0]["user"]["token"])


async def test_no_call_is_refused_over_50_replacements(reader: Reader, agent: Program) -> None:
    """One reader takes what the agent wrote, one what Vault says; both call all the time, and never see a 401."""
    file = reader.folder / "kubeconfig"

    async def written() -> bool:
        return file.exists()

    async def from_file() -> tuple[int, str]:
        return file.stat().st_mtime_ns, rendered(reader)

    async def from_vault() -> tuple[int, str]:
        _, answer = await reader.lab.vault.api("GET", f"secret/data/{LAB}shop/reporter/default")
        return answer["data"]["metadata"]["version"], answer["data"]["data"]["token"]

    await until(written, what="the agent has written the file", programs=[agent])
    readers = [VaultReader(reader.lab.cluster, PODS, read, calls_per_read=1) for read in (from_file, from_vault)]
    first = await reader.version()
    async with readers[0].looping(), readers[1].looping():
        for _ in range(REPLACEMENTS):
            await reader.replace()
            await readers[1].calls()

        async def followed() -> bool:
            return rendered(reader) == (await from_vault())[1]

        await until(followed, what="the agent has the last version", programs=[agent])
        await asyncio.gather(*(one.calls() for one in readers))

    assert await reader.version() - first >= REPLACEMENTS
    assert [set(one.statuses) for one in readers] == [{200}, {200}]
    assert len(set(readers[0].seen)) >= 3
    assert len(set(readers[1].seen)) >= REPLACEMENTS // 2
    assert file.stat().st_mode & 0o777 == 0o600


async def test_the_file_works_in_kubectl(reader: Reader, agent: Program) -> None:
    """It is a whole kubeconfig, for what the account may and nothing else."""

    async def written() -> bool:
        return (reader.folder / "kubeconfig").exists()

    await until(written, what="the agent has written the file", programs=[agent])
    kubectl = reader.lab.cluster.kubectl.with_kubeconfig(reader.folder / "kubeconfig")
    await kubectl("get", "pods")

    with pytest.raises(KubectlError, match="Forbidden"):
        await kubectl("get", "secrets")


async def test_the_readers_login_is_for_its_own_path(reader: Reader) -> None:
    """The page's policy lets it read one path: no other client's, no list, no write."""
    ids = {name: (reader.folder / name.replace("_", "-")).read_text() for name in ("role_id", "secret_id")}
    _, login = await reader.lab.vault.api("POST", "auth/approle/login", dict(ids), token="")
    token = login["auth"]["client_token"]
    own = f"secret/data/{LAB}shop/reporter/default"
    calls = [("GET", own), ("PUT", own), ("GET", own.replace("reporter", "other")), ("LIST", f"secret/metadata/{LAB}")]
    statuses = [
        (await reader.lab.vault.api(method, path, {} if method == "PUT" else None, token=token))[0]
        for method, path in calls
    ]

    assert statuses == [200, 403, 403, 403]


async def test_plain_curl(reader: Reader) -> None:
    """The page's lines, as they stand, and the kubeconfig that they leave."""
    got = await reader.sh(reader.here(blocks(AGENT, "sh")[2]).replace("> kubeconfig", "> with-curl"))
    assert got.code == 0, got.stderr

    await reader.lab.cluster.kubectl.with_kubeconfig(reader.folder / "with-curl")("get", "pods")


async def test_hvac(reader: Reader) -> None:
    """The page's program, as it stands."""
    (program,) = blocks(AGENT, "python")
    got = await reader.sh(reader.here(program), sys.executable, "-")

    assert (got.code, got.stdout) == (0, "200\n"), got.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def with_schemas(reader: Reader) -> Lab:
    """Install the resources of External Secrets and make the namespace of Argo CD."""
    cluster = reader.lab.cluster
    names = ("externalsecrets.external-secrets.io", "secretstores.external-secrets.io")
    documents = yaml.load_all(await asyncio.to_thread(crds.EXTERNAL_SECRETS.file().read_text), Loader=yaml.CSafeLoader)
    wanted = [document for document in documents if document and document["metadata"]["name"] in names]
    await cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.dump_all(wanted))
    for name in names:
        await cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}")
    await cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": "argocd", "labels": cluster.marks}})
    return reader.lab


@pytest.mark.parametrize(("page", "namespace"), [(EXTERNAL_SECRETS, "shop"), (ARGOCD, "argocd")])
async def test_external_secrets_takes_the_page(with_schemas: Lab, page: str, namespace: str) -> None:
    """Both resources pass its schemas on a real API server, without a field that it would drop."""
    (resources,) = blocks(page, "yaml")
    apply = ("apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-")
    said = await with_schemas.cluster.kubectl(*apply, input=resources)

    assert said.count("created") == len(list(yaml.safe_load_all(resources)))
    with pytest.raises(KubectlError, match="unknown field"):
        await with_schemas.cluster.kubectl(*apply, input=resources.replace("refreshInterval", "refreshIntervall"))


async def test_argocd_finds_what_it_reads(reader: Reader, broker: BrokerProcess) -> None:
    """The template's keys are in Vault, and ``config`` is what ClusterConfig has names for: token and CA work."""
    await register(reader.lab, blocks(ARGOCD, "sh")[0])
    vault, path = reader.lab.vault, f"secret/data/{LAB}shop/argocd/default"

    async def kept() -> bool:
        return (await vault.api("GET", path))[0] == 200

    await until(kept, what="the token is in Vault", programs=(broker.program,))
    (resource,) = yaml.safe_load_all(blocks(ARGOCD, "yaml")[0])
    (extract,) = resource["spec"]["dataFrom"]
    data: dict[str, Any] = (await vault.api("GET", path))[1]["data"]["data"]
    template: dict[str, str] = resource["spec"]["target"]["template"]["data"]
    secret = {key: filled(text, data) for key, text in template.items()}
    config = json.loads(secret["config"])
    authority = reader.folder / "argocd-ca.crt"
    authority.write_bytes(base64.b64decode(config["tlsClientConfig"]["caData"]))
    headers = {"Authorization": f"Bearer {config['bearerToken']}"}

    assert extract["extract"]["key"].replace(PROD, LAB) == path.removeprefix("secret/data/")
    assert (set(config), set(config["tlsClientConfig"])) == ({"bearerToken", "tlsClientConfig"}, {"insecure", "caData"})
    assert (secret["name"], secret["namespaces"], config["tlsClientConfig"]["insecure"]) == ("lab", "shop", False)
    tls, url = ssl.create_default_context(cafile=str(authority)), secret["server"] + PODS
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=tls) as got,
    ):
        assert got.status == 200


def filled(text: str, data: dict[str, Any]) -> str:
    """Return what External Secrets' template makes of a text."""
    for key, value in data.items():
        text = text.replace(f"{{{{ .{key} }}}}", value)
    return text
