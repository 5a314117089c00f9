"""A real Kubernetes API server: one of our own, or the one that KUBECONFIG_FOR_TESTS names."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support import external_cluster, witness
from tests.support.control_plane import Addresses, ControlPlane, Secrets
from tests.support.kubebox import kubebox
from tests.support.kubectl import Kubectl, write_kubeconfig
from tests.support.processes import ProcessGroup, Program, until
from tests.support.rest import JsonObject, Rest

EXTERNAL = "KUBECONFIG_FOR_TESTS"
_CONFIG_MAP = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_AGGREGATED_ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/view"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster as somebody who may do anything."""

    server: str
    ca_file: Path
    admin_token: str
    kubeconfig: Path


class Cluster:
    """A cluster with admin rights, and its programs when they are ours."""

    def __init__(self, access: Access, folder: Path, rest: Rest, kubectl: Kubectl, plane: ControlPlane | None) -> None:
        self.server = access.server
        self.ca_file = access.ca_file
        self.admin_token = access.admin_token
        self.kubeconfig = access.kubeconfig
        self.kubectl = kubectl
        self.marks: Mapping[str, str] = {}
        """Labels for the namespaces that are made in it: by them a cluster that is not ours is cleared on leaving."""
        self._folder = folder
        self._rest = rest
        self._plane = plane

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        group: ProcessGroup | None = None,
        *,
        witnessed: bool = False,
        flags: Sequence[str] = (),
        own: bool = False,
    ) -> AsyncIterator[Self]:
        """Start a cluster in ``group``, or one of its own, and end it on leaving.

        A ``witnessed`` one writes down every token that it issues (:mod:`tests.support.witness`); its API server
        gets ``flags``, too. With KUBECONFIG_FOR_TESTS nothing is started, nor written down: the cluster it names is
        used, by an admin account that is made there, and removed on leaving with all namespaces that have ``marks``.
        One that is harmed, or needs ``flags``, has to be our ``own`` all the same. Raises ProgramError and
        kubebox.BuildError.
        """
        async with ProcessGroup.joining(group) as processes:
            folder = processes.folder / "cluster"
            folder.mkdir()
            given = None if own else os.environ.get(EXTERNAL)
            more = [*flags, *(witness.kubernetes_flags(processes.folder) if witnessed else ())]
            opened = cls._external(folder, Path(given)) if given else cls._own(folder, processes, more)
            async with opened as cluster:
                yield cluster

    @classmethod
    @asynccontextmanager
    async def _own(cls, folder: Path, group: ProcessGroup, flags: Sequence[str]) -> AsyncIterator[Self]:
        binary = await asyncio.to_thread(kubebox)
        addresses, admin_token = Addresses.choose(), secrets.token_urlsafe(24)
        files = Secrets.create(folder, admin_token)
        access = _access(folder, addresses.server, files.authority, admin_token)
        plane = ControlPlane.of(group, binary, addresses, files, access.kubeconfig, flags)
        kubectl = Kubectl([str(binary), "kubectl"], access.kubeconfig, folder / "cache")
        async with Rest.open(access.server, access.ca_file) as rest:
            cluster = cls(access, folder, rest, kubectl, plane)
            for program in plane.programs:
                program.start()
            await cluster.ready()
            try:
                yield cluster
            finally:
                await asyncio.gather(*(program.kill() for program in plane.programs))

    @classmethod
    @asynccontextmanager
    async def _external(cls, folder: Path, kubeconfig: Path) -> AsyncIterator[Self]:
        command = await external_cluster.kubectl_command()
        person = Kubectl(command, kubeconfig, folder / "cache")
        async with external_cluster.admin(person, folder) as found:
            access = _access(folder, found.server, found.ca_file, found.token)
            async with Rest.open(access.server, access.ca_file) as rest:
                kubectl = Kubectl(command, access.kubeconfig, folder / "cache")
                cluster = cls(access, folder, rest, kubectl, None)
                cluster.marks = found.marks
                yield cluster

    @property
    def etcd(self) -> Program:
        """The store; raises RuntimeError when the cluster is not ours."""
        return self._own_plane().etcd

    @property
    def api_server(self) -> Program:
        """The API server; it comes back at the same address with the same data. As ``etcd``."""
        return self._own_plane().api_server

    @property
    def controller_manager(self) -> Program:
        """The controllers, the garbage collector among them. As ``etcd``."""
        return self._own_plane().controller_manager

    async def ready(self, seconds: float = 60.0) -> None:
        """Wait until requests are answered, default roles exist and controllers work; raises ProgramError."""
        programs: Sequence[Program] = self._plane.programs if self._plane else ()
        await until(self._complete, what="cluster is complete", seconds=seconds, programs=programs)

    async def request(
        self, method: str, path: str, json: JsonObject | None = None, *, token: str | None = None
    ) -> tuple[int, JsonObject]:
        """Call the API as admin, or with another bearer token; an empty token means none at all.

        A PATCH is a JSON merge patch. Statuses are returned, never raised.
        """
        headers = self._authorization(token)
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        return await self._rest.call(method, path, json, headers)

    async def apply(self, manifests: str) -> str:
        """Apply YAML as kubectl does and return what it printed; raises KubectlError."""
        return await self.kubectl("apply", "-f", "-", input=manifests)

    async def token_for(self, namespace: str, account: str, audiences: Sequence[str] = (), seconds: int = 3600) -> str:
        """Return a token for a service account, for the API server when no audience is named."""
        spec: JsonObject = {"expirationSeconds": seconds, "audiences": list(audiences)}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        status, body = await self.request("POST", path, {"spec": spec})
        if status != 201:
            raise RuntimeError(f"no token for {namespace}/{account}: {status} {body.get('message')}")
        return str(body["status"]["token"])

    def kubeconfig_for(self, token: str) -> Path:
        """Return the path of a kubeconfig that holds ``token``."""
        name = hashlib.sha256(token.encode()).hexdigest()[:16]
        path = self._folder / f"kubeconfig-{name}.yaml"
        return write_kubeconfig(path, server=self.server, ca_file=self.ca_file, token=token)

    async def _complete(self) -> bool:
        for path in ("/readyz", _SERVICE_ACCOUNT, _CONFIG_MAP):
            if not await self._rest.answers(path, 200, headers=self._authorization(None)):
                return False
        _, role = await self.request("GET", _AGGREGATED_ROLE)
        return bool(role.get("rules"))

    def _authorization(self, token: str | None) -> dict[str, str]:
        bearer = self.admin_token if token is None else token
        return {"Authorization": f"Bearer {bearer}"} if bearer else {}

    def _own_plane(self) -> ControlPlane:
        if self._plane is None:
            raise RuntimeError(f"{EXTERNAL} is set: its programs cannot be stopped; unset it for this test")
        return self._plane


def _access(folder: Path, server: str, ca_file: Path, token: str) -> Access:
    kubeconfig = write_kubeconfig(folder / "kubeconfig.yaml", server=server, ca_file=ca_file, token=token)
    return Access(server, ca_file, token, kubeconfig)
