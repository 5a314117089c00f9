"""A whole installation of a test module's own, which the doctor is asked about and which is harmed on purpose."""

import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.broker import BrokerProcess
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.doctor import Told, doctor
from tests.support.installed import install
from tests.support.installed_cluster import RBAC
from tests.support.lab import Lab
from tests.support.processes import free_port, until

LEASE = "tokenbroker-leader"
CONFIG_MAP = "/api/v1/namespaces/tokenbroker/configmaps/tokenbroker"


@dataclass(frozen=True, slots=True)
class World:
    """A cluster with the release's manifests, a Vault, and a broker that serves TLS."""

    lab: Lab
    broker: BrokerProcess
    authority: Authority

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        """Start all of it, with the configuration in the ConfigMap that the Deployment names."""
        async with Lab.start(own=True) as lab:
            await install(lab.cluster)
            folder = lab.folder / "tls"
            folder.mkdir()
            authority = Authority.create(folder, "broker-ca")
            files = authority.server("tokenbroker")
            listen: dict[str, Any] = {"port": free_port()}
            listen["tls"] = {"cert_file": str(files.certificate), "key_file": str(files.key)}
            async with BrokerProcess.start(lab, listen=listen, lease={"name": LEASE}) as broker:
                # What tests give a broker for a Lease of its own, it has by the release for this one.
                await lab.cluster.request("DELETE", f"{RBAC}/namespaces/tokenbroker/rolebindings/{LEASE}")
                await _configure(lab.cluster, broker.url)
                yield cls(lab, broker, authority)

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self.lab.cluster

    @property
    def ca_file(self) -> Path:
        """The authority of the broker's certificate."""
        return self.authority.file

    async def ask(
        self,
        *more: str,
        user: Path | None = None,
        vault_token: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Told:
        """Ask everything, with Vault and the broker's URL from its configuration; ``env`` says it otherwise."""
        asked = ("--install", "--ca-file", str(self.ca_file), *more)
        return await doctor(self.cluster, *asked, user=user, vault=self.lab.vault, vault_token=vault_token, env=env)

    @asynccontextmanager
    async def changed(self, path: str, change: Any) -> AsyncIterator[None]:
        """Change an object, and make it what it was."""
        _, before = await self.cluster.request("GET", path)
        after = copy.deepcopy(before)
        change(after)
        await self._put(path, after)
        try:
            yield
        finally:
            await self._put(path, before)

    @asynccontextmanager
    async def without(self, path: str) -> AsyncIterator[None]:
        """Delete an object, and make it again."""
        _, before = await self.cluster.request("GET", path)
        await self.cluster.request("DELETE", path)
        try:
            yield
        finally:
            await self._put(path, before)

    async def in_force(self) -> None:
        """Wait until policies that were away refuse again."""

        async def refusing() -> bool:
            told = await doctor(self.cluster, "--install")
            return all(
                told.state(f"policy.{name}.tried") == "ok" for name in ("tokenbroker-secrets", "tokenbroker-tokens")
            )

        await until(refusing, what="the policies are in force again")

    async def _put(self, path: str, wanted: dict[str, Any]) -> None:
        wanted = copy.deepcopy(wanted)
        for key in ("resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"):
            wanted["metadata"].pop(key, None)
        wanted.pop("status", None)
        status, now = await self.cluster.request("GET", path)
        if status == 404:
            status, answer = await self.cluster.request("POST", path.rpartition("/")[0], wanted)
        else:
            wanted["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"]
            status, answer = await self.cluster.request("PUT", path, wanted)
        assert status in {200, 201}, answer


async def _configure(cluster: Cluster, url: str) -> None:
    config = {
        "cluster": {"server": cluster.server, "ca_file": "/etc/tokenbroker/cluster-ca.crt"},
        "listen": {"public_url": url},
    }
    data = {"config.yaml": yaml.safe_dump(config), "cluster-ca.crt": cluster.ca_file.read_text()}
    body = {"metadata": {"name": "tokenbroker"}, "data": data}
    await cluster.request("POST", CONFIG_MAP.rpartition("/")[0], body)
