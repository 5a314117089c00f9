"""A broker that believes an OIDC issuer, and clients of it without any secret."""

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode

from tests.support import witness
from tests.support.broker import BrokerProcess, Reply, Tenant, token_client
from tests.support.issuer import Issuer, SigningKey
from tests.support.lab import Lab
from tests.support.processes import free_port
from tests.support.witness import BROKER

NAMESPACE = "federated"
CLAIMS = {"repository_id": ["123456"], "environment": ["production", "staging"]}
_ADDRESSES = (f"2001:db8::{number:x}" for number in itertools.count(1))
FORM = "application/x-www-form-urlencoded"
AWAY = "https://127.0.0.1:9"
"""An issuer that nobody can reach."""
OWNER = {"repository_owner_id": ["42"]}


@dataclass(frozen=True, slots=True)
class Federated:
    """The broker, its issuer, and a namespace with the clients ``ci`` (oidc), ``signer`` and ``pod``.

    ``key`` signs for ``signer``; ``pod`` is proved by the ServiceAccount ``runner``.
    """

    lab: Lab
    broker: BrokerProcess
    issuer: Issuer
    tenant: Tenant
    key: SigningKey = field(default_factory=lambda: SigningKey.create("signer-1"))

    @classmethod
    @asynccontextmanager
    async def start(cls, lab: Lab) -> AsyncIterator[Self]:
        """Start the issuer and the broker, and register the clients."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        async with Issuer.start(lab.folder / "issuer") as issuer:
            oidc = {"issuers": [issuer.config(claims=OWNER), {"issuer": AWAY}]}
            listen = {"port": port, "public_url": url, "trusted_proxies": ["127.0.0.1/32"]}
            async with BrokerProcess.start(lab, listen=listen, oidc=oidc) as broker:
                tenant = await Tenant.create(lab.cluster, NAMESPACE)
                made = cls(lab, broker, issuer, tenant)
                await made._register()
                yield made

    @property
    def audience(self) -> str:
        """The broker's own URL."""
        return self.broker.url

    def jwt(self, **claims: Any) -> str:
        """Return a JWT that proves ``ci``, but for what is changed about it."""
        return self.issuer.token(claims.pop("aud", self.audience), **claims)

    async def account_token(self, account: str = "runner", *, audiences: list[str] | None = None) -> str:
        """Return a token of an account of the namespace, for the broker where nobody else is named."""
        return await self.lab.cluster.token_for(NAMESPACE, account, audiences=audiences or [self.audience])

    async def ask(self, token: str, client: str = "ci", **body: Any) -> Reply:
        """Ask for a token with a JWT, each time from another address, so that failures do not add up."""
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": next(_ADDRESSES)}
        return await self.broker.call(
            "POST", "/v1/tokens", {"client": f"{NAMESPACE}/{client}", **body}, headers=headers
        )

    async def named(self, client: str) -> Reply:
        """Ask with a right JWT in anybody's name."""
        headers = {"Authorization": f"Bearer {self.jwt()}", "X-Forwarded-For": next(_ADDRESSES)}
        return await self.broker.call("POST", "/v1/tokens", {"client": client}, headers=headers)

    async def form(
        self,
        form: Mapping[str, str],
        *,
        path: str = "/oauth2/token",
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a form to an OAuth endpoint, from another address each time unless ``headers`` say so."""
        sent = {"Content-Type": FORM, "X-Forwarded-For": next(_ADDRESSES), **(headers or {})}
        return await self.broker.call("POST", path, data=urlencode(form).encode(), headers=sent, auth=auth)

    async def outcome(self, token: str, client: str = "ci") -> tuple[int, str]:
        """Return status and code of what a JWT gets."""
        reply = await self.ask(token, client)
        return reply.status, reply.body.get("code", "issued")

    async def reviews(self) -> int:
        """Return how often the broker has asked the API server about a token, by the server's own audit log."""
        return sum(
            '"resource": "tokenreviews"' in line and f'"username": "{BROKER}"' in line
            for line in witness.written_to_kubernetes(self.lab.folder)
        )

    async def failures(self, reason: str) -> float:
        """Return how many proofs have failed for a reason."""
        start = f'tokenbroker_authentication_failures_total{{reason="{reason}"}} '
        lines = (await self.broker.metrics()).splitlines()
        return next(float(line.removeprefix(start)) for line in lines if line.startswith(start))

    async def register(self, name: str, *authentication: dict[str, Any], **spec: Any) -> None:
        """Register a client of the account ``reader`` with these proofs, and wait until it is ready."""
        body = token_client(
            NAMESPACE,
            name,
            authentication=list(authentication),
            grants=[{"serviceAccount": {"name": "reader"}}],
            **spec,
        )
        status, answer = await self.lab.cluster.request("POST", self.tenant.path, body)
        if status != 201:
            raise RuntimeError(f"TokenClient {name} was refused: {answer.get('message')}")
        await self.until_ready(name)

    async def until_ready(self, name: str) -> None:
        """Wait until a client of the namespace is ready."""
        await self.broker.until_ready(f"{NAMESPACE}/{name}")

    async def account(self, name: str) -> dict[str, str]:
        """Make an account of the namespace and return it as a TokenClient names it."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        _, made = await self.lab.cluster.request("POST", path, {"metadata": {"name": name}})
        return {"namespace": NAMESPACE, "name": name, "uid": made["metadata"]["uid"]}

    def last_record(self, client: str) -> dict[str, Any]:
        """Return the newest audit record of a client."""
        return self.broker.records(f"{NAMESPACE}/{client}")[-1]

    async def _register(self) -> None:
        await self.tenant.account("reader")
        await self.register("ci", {"oidc": {"issuer": self.issuer.url, "claims": CLAIMS}})
        await self.register("signer", {"publicKeys": {"jwks": {"keys": [self.key.jwk]}}})
        await self.register("pod", {"serviceAccount": await self.account("runner")})
