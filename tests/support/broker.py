"""The broker itself as a process, under its own limited account in a real cluster."""

import asyncio
import base64
import json as jsonlib
import secrets
import ssl
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from multidict import CIMultiDict

from broker.identity import secret
from tests.support.cluster import Cluster
from tests.support.lab import Lab
from tests.support.processes import Program, free_port, until

ROOT = Path(__file__).parents[2]
ACCOUNT = ("tokenbroker", "tokenbroker")
CONFIG, AUDIT, METRICS, REPLIES = "config.yaml", "audit.jsonl", "metrics.txt", "replies.jsonl"
STRONG = [{"namespaces": ["shop"], "strong_accounts": True}]
"""The pages for CI and Argo CD let clients deploy, in the namespace shop: their operator allows that."""
NO_DELAY = {"shutdown_delay_seconds": 0}
"""Nobody has to learn to call another broker, where there is none."""
_LAST_SCRAPE_SECONDS = 5.0
_TOKENS = frozenset({"token", "access_token", "config", "status"})
"""Where the token is in the answers of all formats."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; ``body`` is the decoded JSON, or the text of anything else."""

    status: int
    headers: Mapping[str, str]
    body: Any


class BrokerProcess:
    """A running ``tokenbroker serve``. What it says stays in files: see :mod:`tests.support.outputs`."""

    def __init__(self, program: Program, config: dict[str, Any], folder: Path) -> None:
        self.program = program
        scheme = "https" if isinstance(config["listen"].get("tls"), dict) else "http"
        self.url = f"{scheme}://127.0.0.1:{config['listen']['port']}"
        self.ops_url = f"http://127.0.0.1:{config['ops']['port']}"
        self.audit_file = Path(config["audit"]["file"])
        self.folder = folder

    @classmethod
    @asynccontextmanager
    async def start(
        cls, lab: Lab, name: str = "broker", *, program: Sequence[str] = ("broker",), **overrides: Any
    ) -> AsyncIterator[Self]:
        """Start one as the account of deploy/base, which is applied already, and stop it on leaving.

        ``program`` is Python's module to run, with its options before those of the broker.
        """
        async with cls.start_unready(lab, name, program=program, **overrides) as broker:
            await broker.ready()
            yield broker

    @classmethod
    @asynccontextmanager
    async def start_unready(
        cls, lab: Lab, name: str = "broker", *, program: Sequence[str] = ("broker",), **overrides: Any
    ) -> AsyncIterator[Self]:
        """Start one like :meth:`start`, and do not wait until it is ready."""
        folder = lab.folder / name
        folder.mkdir()
        overrides.setdefault("lease", _lease(name))
        await _allow_lease(lab, overrides["lease"]["name"])
        config = await _config(lab, folder) | overrides
        config["listen"] = NO_DELAY | config["listen"]
        path = folder / CONFIG
        path.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", *program, "serve", "--config", str(path)]
        broker = cls(lab.processes.program(name, command), config, folder)
        broker.program.start()
        try:
            yield broker
        finally:
            await broker._keep_metrics()
            await broker.program.stop()

    async def ready(self) -> None:
        """Wait until it says that it is ready; raises ProgramError with its log when it does not get there."""
        await until(self._ready, what="broker is ready", programs=(self.program,))

    def records(self, client: str) -> list[dict[str, Any]]:
        """Return the audit records of a client."""
        lines = self.audit_file.read_text().splitlines()
        return [record for record in map(jsonlib.loads, lines) if record["client"] == client]

    async def until_ready(self, client: str) -> None:
        """Wait until a client is ready by this broker's own word: its status may be another broker's."""
        namespace, name = client.split("/")
        line = f'tokenbroker_client_ready{{client="{name}",namespace="{namespace}"}} 1.0'

        async def ready() -> bool:
            return line in (await self.metrics()).splitlines()

        await until(ready, what=f"{client} is ready", programs=(self.program,))

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        auth: tuple[str, str] | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Reply:
        """Make one HTTP call to it; ``tls`` says whom to trust and which certificate to show."""
        sent = dict(headers or {})
        if auth is not None:
            sent["Authorization"] = basic(*auth)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=json, data=data, headers=sent, ssl=tls or True) as answer,
        ):
            is_json = answer.content_type.endswith("json")
            reply = Reply(answer.status, dict(answer.headers), await (answer.json() if is_json else answer.text()))
        self._keep_reply(reply)
        return reply

    async def raw_status(self, method: str, path: str, headers: Iterable[tuple[str, str]]) -> int:
        """Return the status for a request whose headers may be there twice."""
        sent = CIMultiDict(headers)
        async with aiohttp.ClientSession() as session, session.request(method, self.url + path, headers=sent) as answer:
            return answer.status

    async def metrics(self) -> str:
        """Return what Prometheus would scrape."""
        async with aiohttp.ClientSession() as session, session.get(self.ops_url + "/metrics") as answer:
            return await answer.text()

    async def _keep_metrics(self) -> None:
        with suppress(aiohttp.ClientError, TimeoutError):  # a test may have ended or frozen it
            async with asyncio.timeout(_LAST_SCRAPE_SECONDS):
                (self.folder / METRICS).write_text(await self.metrics())

    def _keep_reply(self, reply: Reply) -> None:
        """Keep all of an answer but the token that its caller asked for."""
        body = reply.body
        if isinstance(body, dict):
            body = {
                key: value
                for key, value in body.items()
                if reply.status >= HTTPStatus.BAD_REQUEST or key not in _TOKENS
            }
        elif reply.status == HTTPStatus.OK:
            body = ""  # a kubeconfig is nothing but the token and what surrounds it
        with (self.folder / REPLIES).open("a") as file:
            file.write(jsonlib.dumps([reply.status, dict(reply.headers), body]) + "\n")

    async def _ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(self.ops_url + "/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def basic(user: str, password: str) -> str:
    """Return an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def _config(lab: Lab, folder: Path) -> dict[str, Any]:
    token = folder / "token"
    token.write_text(await lab.cluster.token_for(*ACCOUNT))
    vault_token = folder / "vault-token"
    vault_token.write_text(await lab.cluster.token_for(*ACCOUNT, audiences=["vault"]))
    return {
        "cluster": {"name": "lab", "server": lab.cluster.server, "ca_file": str(lab.cluster.ca_file)},
        "kubernetes": {
            "server": lab.cluster.server,
            "ca_file": str(lab.cluster.ca_file),
            "token_file": str(token),
        },
        "listen": {"port": free_port()},
        "ops": {"port": free_port()},
        "audit": {"file": str(folder / AUDIT)},
        "vault": {
            "address": lab.vault.address,
            "ca_file": str(lab.vault.ca_file),
            "token_file": str(vault_token),
            "timeout_seconds": 3,
        },
        "limits": STRONG,
        "log_level": "debug",
    }


def _lease(name: str) -> dict[str, Any]:
    """Return the section for a broker that waits for no other one: a Lease of its own, also in a kept cluster."""
    return {"name": f"{name}-{secrets.token_hex(4)}", "duration_seconds": 5}


async def _allow_lease(lab: Lab, name: str) -> None:
    """Let the broker's account hold a Lease of another name: deploy/base allows one."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ACCOUNT[0]}"
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [name],
        "verbs": ["get", "update"],
    }
    role = {"kind": "Role", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT[1], "namespace": ACCOUNT[0]}
    await lab.cluster.request("POST", f"{rbac}/roles", {"metadata": {"name": name}, "rules": [rule]})
    binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    await lab.cluster.request("POST", f"{rbac}/rolebindings", binding)


def token_client(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    """Return a TokenClient."""
    return {
        "apiVersion": "tokenbroker.dev/v1alpha1",
        "kind": "TokenClient",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@dataclass(frozen=True, slots=True)
class Registered:
    """A client as its owner knows it."""

    id: str
    secret: str

    @property
    def auth(self) -> tuple[str, str]:
        """Id and secret, for HTTP Basic."""
        return self.id, self.secret


@dataclass(frozen=True, slots=True)
class Tenant:
    """A namespace whose owner registers clients, by hand as deploy/client-namespace shows."""

    cluster: Cluster
    namespace: str
    broker: tuple[str, str] = ACCOUNT

    @classmethod
    async def create(cls, cluster: Cluster, namespace: str, broker: tuple[str, str] = ACCOUNT) -> Self:
        """Make the namespace, opted in as its operator would."""
        metadata = {"name": namespace, "labels": {"tokenbroker.dev/clients": "enabled", **cluster.marks}}
        await cluster.request("POST", "/api/v1/namespaces", {"metadata": metadata})
        return cls(cluster, namespace, broker)

    async def account(self, name: str, *, cluster_role: str = "view") -> None:
        """Make an account with the rights of a ClusterRole here, and let the broker mint for it."""
        core, rbac = f"/api/v1/namespaces/{self.namespace}", "/apis/rbac.authorization.k8s.io/v1"
        await self.cluster.request("POST", f"{core}/serviceaccounts", {"metadata": {"name": name}})
        role = {"kind": "ClusterRole", "name": cluster_role, "apiGroup": "rbac.authorization.k8s.io"}
        bindings = f"{rbac}/namespaces/{self.namespace}/rolebindings"
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        await self.cluster.request(
            "POST", bindings, {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
        )
        await self.allow_minting(name)

    async def allow_minting(self, account: str) -> None:
        """Give the broker the Role of deploy/client-namespace for one account."""
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        name = f"tokenbroker-mint-{account}"
        rules = [
            {
                "apiGroups": [""],
                "resources": ["serviceaccounts/token"],
                "resourceNames": [account],
                "verbs": ["create"],
            },
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]},
        ]
        await self.cluster.request("POST", f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
        role = {"kind": "Role", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        subject = {"kind": "ServiceAccount", "name": self.broker[1], "namespace": self.broker[0]}
        binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
        await self.cluster.request("POST", f"{rbac}/rolebindings", binding)

    async def client(self, name: str, *grants: dict[str, Any], **spec: Any) -> Registered:
        """Register a client with a new secret and return both."""
        made = secret.generate().reveal()
        digests = [secret.format_digest(secret.digest(made))]
        body = token_client(
            self.namespace,
            name,
            authentication=[{"clientSecret": {"digests": digests}}],
            grants=list(grants),
            **spec,
        )
        status, answer = await self.cluster.request("POST", self.path, body)
        if status != 201:
            raise RuntimeError(f"TokenClient {name} was refused: {answer.get('message')}")
        return Registered(f"{self.namespace}/{name}", made)

    async def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Change a client's specification."""
        status, answer = await self.cluster.request("PATCH", f"{self.path}/{name}", {"spec": spec})
        if status != 200:
            raise RuntimeError(f"TokenClient {name} was not changed: {answer.get('message')}")

    async def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        """Return a condition of a client, or an empty object while there is none."""
        _, resource = await self.cluster.request("GET", f"{self.path}/{name}")
        found = [one for one in resource.get("status", {}).get("conditions", ()) if one["type"] == kind]
        return found[0] if found else {}

    async def until_reason(self, name: str, reason: str) -> dict[str, Any]:
        """Wait until the Ready condition has a reason, and return it."""

        async def reached() -> bool:
            return (await self.condition(name)).get("reason") == reason

        await until(reached, what=f"{self.namespace}/{name} has the reason {reason}")
        return await self.condition(name)

    async def ready_client(self, name: str, account: str = "reader", **grant: Any) -> Registered:
        """Make an account and a client of it, and wait until it is Ready."""
        await self.account(account)
        client = await self.client(name, {"serviceAccount": {"name": account}, **grant})
        await self.until_reason(name, "Ready")
        return client

    @property
    def path(self) -> str:
        """Where the namespace's TokenClients are."""
        return f"/apis/tokenbroker.dev/v1alpha1/namespaces/{self.namespace}/tokenclients"
