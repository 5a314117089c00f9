"""A tenant of two namespaces, his copy of deploy/overlays/tenant, and the broker as it would run there."""

import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from broker.identity import secret
from tests.support.broker import NO_DELAY, ROOT, BrokerProcess, Registered
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl
from tests.support.processes import ProcessGroup, free_port, until
from tests.support.registries import DirectorySource

SHOP, BROKERS = "shop", "shop-tokenbroker"
OVERLAY = Path("overlays") / "tenant"
URL = "http://127.0.0.1:9"
CORE = f"/api/v1/namespaces/{SHOP}"
_NOBODYS = "sha256:" + "0" * 64


async def admitted(cluster: Cluster) -> Kubectl:
    """Make the tenant's namespaces, and return kubectl as the tenant: ``admin`` of both and nothing else."""
    for namespace in (SHOP, BROKERS):
        await cluster.kubectl("create", "namespace", namespace)
    await cluster.kubectl("create", "serviceaccount", "tenant", "-n", SHOP)
    for namespace in (SHOP, BROKERS):
        binding = ("create", "rolebinding", "tenant", "--clusterrole=admin", f"--serviceaccount={SHOP}:tenant")
        await cluster.kubectl(*binding, "-n", namespace)
    return cluster.kubectl.with_kubeconfig(cluster.kubeconfig_for(await cluster.token_for(SHOP, "tenant")))


@dataclass(frozen=True, slots=True)
class Shop:
    """The tenant's two namespaces, his copy of deploy, and his broker."""

    cluster: Cluster
    kubectl: Kubectl
    deploy: Path
    clients: DirectorySource
    broker: BrokerProcess
    reporter: Registered

    @classmethod
    @asynccontextmanager
    async def open(cls, cluster: Cluster, kubectl: Kubectl, **overrides: Any) -> AsyncIterator[Self]:
        """Apply the overlay with a client of our own, and run the broker as the Deployment would."""
        async with ProcessGroup.start() as group:
            deploy, clients = group.folder / "deploy", DirectorySource(group.folder / "clients")
            shutil.copytree(ROOT / "deploy", deploy)
            made = secret.generate()
            file = deploy / OVERLAY / "broker" / "reporter.yaml"
            file.write_text(file.read_text().replace(_NOBODYS, secret.format_digest(secret.digest(made.reveal()))))
            await _apply(kubectl, deploy)
            await _mount(kubectl, clients)
            config = await _configuration(kubectl, cluster, group.folder)
            config |= {"registry": {"directory": str(clients.folder)}} | overrides
            path = group.folder / "config.yaml"
            path.write_text(yaml.safe_dump(config))
            program = group.program("broker", [sys.executable, "-m", "broker", "serve", "--config", str(path)])
            broker = BrokerProcess(program, config, group.folder)
            program.start()
            try:
                await broker.ready()
                yield cls(cluster, kubectl, deploy, clients, broker, Registered(f"{SHOP}/reporter", made.reveal()))
            finally:
                await program.stop()

    def client(self) -> dict[str, Any]:
        """Return the client's file as the overlay has it, with its own secret."""
        digest = secret.format_digest(secret.digest(self.reporter.secret))
        text = (ROOT / "deploy" / OVERLAY / "broker" / "reporter.yaml").read_text()
        document: dict[str, Any] = yaml.safe_load(text.replace(_NOBODYS, digest))
        return document

    async def token(self) -> str:
        """Return a token of the client, once the broker is ready for it."""
        await self.serves(200)
        reply = await self.broker.call("POST", "/v1/tokens", {}, auth=self.reporter.auth)
        return str(reply.body["token"])

    async def until_refused(self, token: str) -> None:
        """Wait until the API server refuses a token."""

        async def refused() -> bool:
            return (await self.cluster.request("GET", f"{CORE}/pods", token=token))[0] == 401

        await until(refused, what="the token is refused")

    async def apply(self, document: Any) -> None:
        """Write the client's file (None: take it away), apply it as the tenant, and mount it as the kubelet does."""
        folder = self.deploy / OVERLAY / "broker"
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        kustomization["configMapGenerator"][1]["files"] = ["reporter.yaml"] if document else []
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        (folder / "reporter.yaml").write_text(yaml.safe_dump(document))
        await _apply(self.kubectl, self.deploy)
        await _mount(self.kubectl, self.clients)

    async def serves(self, status: int, code: str | None = None) -> None:
        """Wait until the broker answers the client with a status and code."""

        async def answers() -> bool:
            reply = await self.broker.call("POST", "/v1/tokens", {}, auth=self.reporter.auth)
            return (reply.status, reply.body.get("code")) == (status, code)

        await until(answers, what=f"the broker answers {status} {code}", programs=(self.broker.program,))

    async def logs(self, words: str) -> None:
        """Wait until the broker's log has some words."""

        async def said() -> bool:
            return words in self.broker.program.log.read_text()

        await until(said, what=f"the log has {words}", programs=(self.broker.program,))


async def _apply(kubectl: Kubectl, deploy: Path) -> None:
    """Apply the overlay as its README says."""
    await kubectl("apply", "-k", str(deploy / OVERLAY))


async def _mount(kubectl: Kubectl, clients: DirectorySource) -> None:
    """Do what the kubelet does with the ConfigMap of clients."""
    found = yaml.safe_load(await kubectl("get", "configmap", "tokenbroker-clients", "-n", BROKERS, "-o", "yaml"))
    await clients.swap(found.get("data") or {})


async def _configuration(kubectl: Kubectl, cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Return what the overlay configures, with what a process outside a pod needs instead of a pod's own."""
    listed = yaml.safe_load(await kubectl("get", "configmaps", "-n", BROKERS, "-o", "yaml"))["items"]
    [text] = [found["data"]["config.yaml"] for found in listed if "config.yaml" in found.get("data", {})]
    config: dict[str, Any] = yaml.safe_load(text)
    token = folder / "token"
    token.write_text((await kubectl("create", "token", "tokenbroker", "-n", BROKERS)).strip())
    config["cluster"] |= {"server": cluster.server, "ca_file": str(cluster.ca_file)}
    config["kubernetes"] = {"server": cluster.server, "ca_file": str(cluster.ca_file), "token_file": str(token)}
    config["listen"] = {"port": free_port(), "public_url": URL, **NO_DELAY}
    config["ops"] = {"port": free_port()}
    config["audit"] = {"file": str(folder / "audit.jsonl")}
    return config
