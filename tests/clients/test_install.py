"""docs/install.md, run line by line in an empty cluster: what it makes serves a client, and goes without a trace.

Nobody runs pods here: the broker is started beside the cluster, with the configuration, the certificate and the
account that the page has made.
"""

import asyncio
import base64
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.support import crds
from tests.support.broker import ROOT, BrokerProcess
from tests.support.command import Ended
from tests.support.kubebox import kubebox
from tests.support.kubectl import KubectlError
from tests.support.lab import Lab
from tests.support.openbao import bao
from tests.support.pages import blocks, moved
from tests.support.processes import free_port, until

PAGE = "install.md"
LEASE = {"name": "tokenbroker-leader", "duration_seconds": 5}
OVERLAY = "deploy/overlays/yours"
BROKER = "https://tokenbroker.example"


@dataclass
class Newcomer:
    """An empty cluster, and somebody with a checkout and the page in front of him."""

    lab: Lab
    folder: Path
    port: int = field(default_factory=free_port)

    async def run(self, name: str, **places: str) -> Ended:
        """Run a block of the page, with the addresses of the lab."""
        (block,) = blocks(PAGE, f"sh {name}")
        known = {BROKER: f"https://localhost:{self.port}", "DNS:tokenbroker.example": "DNS:localhost"}
        known |= {"https://kubernetes.example:6443": self.lab.cluster.server, **places}
        process = await asyncio.create_subprocess_exec(
            *("sh", "-euc", moved(block, {example: real for example, real in known.items() if example in block})),
            cwd=self.folder,
            env=self._environment(),
            stdout=PIPE,
            stderr=PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 120)
        return Ended(process.returncode or 0, output.decode(), errors.decode())

    async def done(self, name: str) -> str:
        """Run a block, which has to succeed, and return what it printed."""
        ended = await self.run(name)
        assert ended.code == 0, f"{name}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def configure(self) -> None:
        """Write into the overlay what the page shows, with the addresses of the lab."""
        overlay, vault = self.folder / OVERLAY, self.lab.vault
        (config,), (login,), (image,) = (
            blocks(PAGE, f"yaml {it}") for it in ("config.yaml", "vault", "kustomization.yaml")
        )
        server = {"https://kubernetes.example:6443": self.lab.cluster.server, BROKER: f"https://localhost:{self.port}"}
        whole = moved(config, server) + moved(login, {"https://vault.example:8200": vault.address})
        (overlay / "config.yaml").write_text(whole)
        shutil.copyfile(vault.ca_file, overlay / "vault-ca.crt")
        kustomization = overlay / "kustomization.yaml"
        files = moved(kustomization.read_text(), {"cluster-ca.crt]": "cluster-ca.crt, vault-ca.crt]"})
        kustomization.write_text(files + image)

    async def configuration(self) -> dict[str, Any]:
        """Return what the Deployment mounts, with the files where this machine has them."""
        _, maps = await self.lab.cluster.request("GET", "/api/v1/namespaces/tokenbroker/configmaps")
        _, deployment = await self.lab.cluster.request(
            "GET", "/apis/apps/v1/namespaces/tokenbroker/deployments/tokenbroker"
        )
        _, tls = await self.lab.cluster.request("GET", "/api/v1/namespaces/tokenbroker/secrets/tokenbroker-tls")
        pod = deployment["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == "registry.example/tokenbroker:0.1.0"
        volumes = {it["name"]: it for it in pod["volumes"]}
        mounted = volumes["config"]["configMap"]["name"]
        (config,) = [it["data"] for it in maps["items"] if it["metadata"]["name"] == mounted]
        secret = {name: base64.b64decode(value).decode() for name, value in tls["data"].items()}
        for mount, files in (("etc/tokenbroker", config), ("etc/tokenbroker-tls", secret)):
            (self.folder / mount).mkdir(parents=True)
            for name, text in files.items():
                (self.folder / mount / name).write_text(text)
        here: dict[str, Any] = yaml.safe_load(config["config.yaml"].replace("/etc/", f"{self.folder}/etc/"))
        return here

    @asynccontextmanager
    async def broker(self, name: str, config: Mapping[str, Any]) -> AsyncIterator[BrokerProcess]:
        """Run one as the Deployment would, but for its port and the place of its login to Vault."""
        listen = config["listen"] | {"port": self.port}
        vault = config["vault"] | {"token_file": str(self.lab.folder / name / "vault-token")}
        rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/tokenbroker"
        running = BrokerProcess.start(
            self.lab, name, cluster=config["cluster"], listen=listen, vault=vault, lease=LEASE
        )
        async with running as broker:
            # What tests give a broker for a Lease of its own, this one has by the page.
            for kind in ("rolebindings", "roles"):
                await self.lab.cluster.request("DELETE", f"{rbac}/{kind}/{LEASE['name']}")
            yield broker

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.lab.cluster.kubeconfig),
            "VAULT_CLI": str(bao()),
            "BAO_ADDR": self.lab.vault.address,
            "BAO_CACERT": str(self.lab.vault.ca_file),
            "BAO_TOKEN": self.lab.vault.root_token,
        }


@pytest_asyncio.fixture(loop_scope="session")
async def newcomer(tmp_path: Path) -> AsyncIterator[Newcomer]:
    """Start the servers, and put a checkout and the programs into a folder."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    for name, line in {
        "kubectl": f'exec "{kubebox()}" kubectl "$@"',
        "vault": f'exec "{bao()}" "$@"',
        "tokenbroker": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m broker "$@"',
    }.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    async with Lab.start(own=True) as lab:
        yield Newcomer(lab, tmp_path)


async def test_the_page_leads_from_nothing_to_a_token_and_back(newcomer: Newcomer) -> None:
    """Install, register, check, upgrade and remove: each step as it stands, and then nothing of it is left."""
    for step in ("overlay", "namespace", "certificate", "vault"):
        await newcomer.done(step)
    newcomer.configure()
    assert "https://kubernetes.default.svc.cluster.local" in await newcomer.done("audience")
    await newcomer.done("apply")
    config = await newcomer.configuration()
    async with newcomer.broker("first", config):
        await _register(newcomer)
        await newcomer.done("check")
        await newcomer.done("upgrade")
    await _let_go_without_a_broker(newcomer)
    async with newcomer.broker("second", config):
        await _register(newcomer)
        await _keep_in_vault(newcomer)
        assert "reporter" not in await newcomer.done("remove-clients")
        await until(lambda: _in_vault(newcomer, 404), what="Vault holds nothing any more")
    await newcomer.done("remove-broker")
    await newcomer.done("remove-from-vault")
    assert (await newcomer.lab.vault.api("GET", "sys/policies/acl/tokenbroker"))[0] == 404
    assert await _left(newcomer.lab) == []


async def test_cert_manager_takes_the_page(newcomer: Newcomer) -> None:
    """The Certificate passes its schema without a field that it would drop, and fills the Secret that is mounted."""
    cluster = newcomer.lab.cluster
    await cluster.kubectl("apply", "--server-side", "-f", str(await asyncio.to_thread(crds.CERTIFICATES.file)))
    await cluster.kubectl("wait", "--for=condition=Established", "crd/certificates.cert-manager.io")
    await newcomer.done("namespace")
    (certificate,) = blocks(PAGE, "yaml certificate")
    apply = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")

    assert "created" in await cluster.kubectl(*apply, input=certificate)
    with pytest.raises(KubectlError, match="unknown field"):
        await cluster.kubectl(*apply, input=certificate.replace("rotationPolicy", "rotation"))
    deployment = (ROOT / "deploy" / "base" / "deployment.yaml").read_text()
    assert f"secretName: {yaml.safe_load(certificate)['spec']['secretName']}}}" in deployment


async def _register(newcomer: Newcomer) -> None:
    """Make the namespace, opt it in, and register the client; then it gets a token."""
    await newcomer.lab.cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    await newcomer.done("opt-in")
    await newcomer.done("client")

    async def served() -> bool:
        ended = await newcomer.run("first-token")
        assert ended.code in {0, 3, 4}, ended.stderr
        return ended.code == 0

    await until(served, what="the client gets its first token")


async def _keep_in_vault(newcomer: Newcomer) -> None:
    """Have the client's token kept in Vault: the login is the one that the page has set up."""
    path = "/apis/tokenbroker.dev/v1alpha1/namespaces/shop/tokenclients/reporter"
    _, found = await newcomer.lab.cluster.request("GET", path)
    grants = [{**found["spec"]["grants"][0], "vault": {}}]
    await newcomer.lab.cluster.request("PATCH", path, {"spec": {"grants": grants}})
    await until(lambda: _in_vault(newcomer, 200), what="the token is in Vault")


async def _in_vault(newcomer: Newcomer, status: int) -> bool:
    return (await newcomer.lab.vault.api("GET", "secret/metadata/tokenbroker/prod/shop/reporter/default"))[0] == status


async def _let_go_without_a_broker(newcomer: Newcomer) -> None:
    """Delete the client while no broker runs: it stays until the page's lines end its tokens and let it go."""
    cluster, token = newcomer.lab.cluster, (newcomer.folder / "reporter.token").read_text().strip()
    client, pods = (
        "/apis/tokenbroker.dev/v1alpha1/namespaces/shop/tokenclients/reporter",
        "/api/v1/namespaces/shop/pods",
    )
    await cluster.request("DELETE", client)
    assert (await cluster.request("GET", client))[0] == 200
    await newcomer.done("remove-without-a-broker")
    assert (await cluster.request("GET", client))[0] == 404

    async def refused() -> bool:
        return (await cluster.request("GET", pods, token=token))[0] == 401

    await until(refused, what="its token is refused")
    (newcomer.folder / "reporter.secret").unlink()


async def _left(lab: Lab) -> list[str]:
    """Return what is there of the broker, and of its clients."""
    kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings,crds,ns"
    listed = [
        await lab.cluster.kubectl("get", kinds, "-o", "name"),
        await lab.cluster.kubectl("get", "serviceaccounts,secrets,roles,rolebindings", "-n", "shop", "-o", "name"),
    ]
    return [line for line in "\n".join(listed).splitlines() if "tokenbroker" in line or "reporter" in line]
