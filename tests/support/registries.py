"""Both sources of TokenClients behind one face: what their users do to them, and what the registries make of it."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from broker.directory.registry import DirectoryRegistry
from broker.errors import BrokerError
from broker.kube.registry import WatchedRegistry
from broker.kube.session import KubeSession
from broker.model.client import Client, ClientId
from broker.ports import LiveRegistry
from tests.support.broker import ROOT, token_client
from tests.support.cluster import Cluster
from tests.support.processes import until

CRD = "tokenclients.tokenbroker.dev"
LONGEST_OWNER = 253


@dataclass(slots=True)
class Told:
    """What a registry told about itself, and of whom."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    changed: list[ClientId] = field(default_factory=list)

    def registry_size(self, valid: int, invalid: int) -> None:
        """Note the counts."""
        self.sizes.append((valid, invalid))

    def registry_files(self, broken: int) -> None:
        """Note the count."""
        self.broken.append(broken)

    def watch_restarted(self, reason: str) -> None:
        """Note why."""
        self.restarts.append(reason)


class Source(Protocol):
    """Where TokenClients come from, as those see it who write them."""

    def registry(self, told: Told) -> LiveRegistry:
        """Return a new registry of it, which does not run yet."""

    async def apply(self, text: str) -> None:
        """Make or change the one TokenClient that a YAML text describes; what is refused is not there afterwards."""

    async def remove(self, client_id: ClientId) -> None:
        """Take one out."""

    async def cut(self) -> None:
        """Put the source out of reach."""

    async def mend(self) -> None:
        """Bring it back as it was."""


@dataclass(slots=True)
class ClusterSource:
    """A real API server, with the schema of deploy/base but for one bound, so that somebody can get past it."""

    cluster: Cluster
    session: KubeSession

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator["ClusterSource"]:
        """Start a cluster that knows TokenClients and nothing else of the broker."""
        async with Cluster.start(own=True) as cluster:
            crd = yaml.safe_load((ROOT / "deploy" / "base" / "crd.yaml").read_text())
            schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            schema["properties"]["spec"]["properties"]["owner"]["maxLength"] = LONGEST_OWNER + 1
            await cluster.apply(json.dumps(crd))
            await cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}")
            token = cluster.kubeconfig.with_name("admin-token")
            token.write_text(cluster.admin_token)
            async with KubeSession(cluster.server, cluster.ca_file, token, 5) as session:
                yield cls(cluster, session)

    def registry(self, told: Told) -> WatchedRegistry:
        """Return a registry that watches."""
        return WatchedRegistry(self.session, told)

    async def apply(self, text: str) -> None:
        """Apply as kubectl does, which refuses fields that are not known."""
        try:
            await self.cluster.kubectl("apply", "--server-side", "-f", "-", input=text)
        except RuntimeError:
            await self.remove(_id_of(text))

    async def remove(self, client_id: ClientId) -> None:
        """Delete a TokenClient."""
        await self.cluster.kubectl("delete", CRD, client_id.name, "-n", client_id.namespace, "--ignore-not-found")

    async def cut(self) -> None:
        """Freeze the API server: connections stay open and nothing is said."""
        self.cluster.api_server.pause()

    async def mend(self) -> None:
        """Let it go on."""
        self.cluster.api_server.resume()
        await self.cluster.ready()


@dataclass(slots=True)
class DirectorySource:
    """A directory as the kubelet mounts a ConfigMap: links through ``..data``, which is swapped as a whole."""

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    _swaps: int = 0

    def registry(self, _told: Told) -> DirectoryRegistry:
        """Return a registry that looks."""
        self.folder.mkdir(exist_ok=True)
        return DirectoryRegistry(self.folder, "lab", _told)

    async def apply(self, text: str) -> None:
        """Put the text into a file of its own."""
        await self.swap(self.files | {f"{_id_of(text).name}.yaml": text})

    async def remove(self, client_id: ClientId) -> None:
        """Take the file away."""
        await self.swap({name: text for name, text in self.files.items() if name != f"{client_id.name}.yaml"})

    async def swap(self, files: Mapping[str, str]) -> None:
        """Replace all files at once."""
        self.folder.mkdir(exist_ok=True)
        self._swaps += 1
        data = self.folder / f"..{self._swaps}"
        data.mkdir()
        for name, text in files.items():
            (data / name).write_text(text)
        before = self.folder / "..data"
        old = before.resolve() if before.is_symlink() else None
        (self.folder / "..data_tmp").symlink_to(data.name)
        (self.folder / "..data_tmp").rename(before)
        for name in files.keys() - self.files.keys():
            (self.folder / name).symlink_to(f"..data/{name}")
        for name in self.files.keys() - files.keys():
            (self.folder / name).unlink()
        if old is not None:
            shutil.rmtree(old)
        self.files = dict(files)

    async def cut(self) -> None:
        """Unmount it."""
        self.folder.rename(self.folder.with_name("away"))

    async def mend(self) -> None:
        """Mount it again."""
        self.folder.with_name("away").rename(self.folder)


@dataclass(slots=True)
class Followed:
    """A registry at work on a source, in a namespace of the test's own."""

    source: Source
    registry: LiveRegistry
    told: Told
    namespace: str

    @classmethod
    @asynccontextmanager
    async def start(cls, source: Source, namespace: str) -> AsyncIterator["Followed"]:
        """Let a new registry follow the source."""
        told = Told()
        registry = source.registry(told)
        registry.on_change = told.changed.append
        followed = cls(source, registry, told, namespace)
        async with followed.running():
            await asyncio.wait_for(registry.synced.wait(), 10)
            yield followed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it for as long as the block lasts."""
        task = asyncio.create_task(self.registry.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def id(self, name: str) -> ClientId:
        """Return the id of a client here."""
        return ClientId(self.namespace, name)

    def client(self, name: str) -> Client | None:
        """Return a client as it is served, or None."""
        registration = self.registry.get(self.id(name))
        return None if registration is None else registration.client

    async def put(self, name: str, spec: Mapping[str, Any]) -> None:
        """Write a TokenClient to the source."""
        await self.source.apply(text_of(self.namespace, name, spec))

    async def changes(self, *names: str) -> None:
        """Wait until there was a change of each of these, and of nobody else; then forget them."""
        wanted = sorted(self.id(name) for name in names)

        async def told() -> bool:
            return len(self.told.changed) >= len(wanted)

        await until(told, what=f"the registry tells of {wanted}")
        assert sorted(self.told.changed) == wanted
        self.told.changed.clear()

    async def stale(self) -> bool:
        """Tell whether it refuses to decide."""
        try:
            self.registry.get(self.id("anybody"))
        except BrokerError:
            return True
        return False


def text_of(namespace: str, name: str, spec: Mapping[str, Any]) -> str:
    """Return a TokenClient as JSON, which is YAML that everybody reads alike."""
    return json.dumps(token_client(namespace, name, **spec))


def _id_of(text: str) -> ClientId:
    metadata = yaml.safe_load(text)["metadata"]
    return ClientId(metadata["namespace"], metadata["name"])
