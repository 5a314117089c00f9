"""Clients that are proved by JWTs of an issuer (OpenID Connect), against a real cluster."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from tests.support.broker import BrokerProcess, Reply, Tenant, token_client
from tests.support.issuer import Issuer
from tests.support.lab import Lab
from tests.support.processes import free_port, until

CLAIMS = {"repository_id": ["123456"], "environment": ["production", "staging"]}


@dataclass(frozen=True, slots=True)
class Federated:
    """A broker that knows an issuer, and a client of it without any secret."""

    lab: Lab
    broker: BrokerProcess
    issuer: Issuer
    tenant: Tenant

    @property
    def audience(self) -> str:
        """The broker's own URL."""
        return self.broker.url

    async def ask(self, token: str, client: str = "federated/ci", **body: Any) -> Reply:
        """Ask for a token with a JWT."""
        return await self.broker.call(
            "POST", "/v1/tokens", {"client": client, **body}, headers={"Authorization": f"Bearer {token}"}
        )

    async def refused(self, token: str, client: str = "federated/ci") -> tuple[int, str]:
        """Return status and code of a refusal."""
        reply = await self.ask(token, client)
        return reply.status, reply.body.get("code", "none: it was issued")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def federated(installed: Lab) -> AsyncIterator[Federated]:
    """Start the issuer and a broker that lists it, and register the client, once."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with Issuer.start(installed.folder / "issuer") as issuer:
        oidc = {"issuers": [issuer.config(claims={"repository_owner_id": ["42"]})]}
        listen = {"port": port, "public_url": url}
        async with BrokerProcess.start(installed, "federated", listen=listen, oidc=oidc) as broker:
            tenant = await Tenant.create(installed.cluster, "federated")
            await tenant.account("reader")
            spec = {
                "authentication": [{"oidc": {"issuer": issuer.url, "claims": CLAIMS}}],
                "grants": [{"serviceAccount": {"name": "reader"}}],
            }
            await installed.cluster.request("POST", tenant.path, token_client("federated", "ci", **spec))
            await tenant.until_reason("ci", "Ready")
            yield Federated(installed, broker, issuer, tenant)


async def test_a_jwt_gets_a_token_that_works(federated: Federated) -> None:
    """No secret anywhere, and the audit record says who it was."""
    reply = await federated.ask(federated.issuer.token(federated.audience))
    pods = await federated.lab.cluster.request(
        "GET", "/api/v1/namespaces/federated/pods", token=reply.body.get("token", "")
    )

    assert reply.status == 200, reply.body
    assert pods[0] == 200
    record = json.loads(federated.broker.audit_file.read_text().splitlines()[-1])
    assert (record["proof"], record["proof_subject"]) == ("oidc", "repo:octo-org/shop:environment:production")


async def test_its_own_claims_that_do_not_match_are_named(federated: Federated) -> None:
    """The names, and neither what was wanted nor anything else; the client's owner sees an Event."""
    reply = await federated.ask(federated.issuer.token(federated.audience, repository_id="1", environment="test"))

    assert (reply.status, reply.body["code"]) == (403, "proof_claims_mismatch")
    assert reply.body["detail"].endswith(": environment, repository_id.")
    assert "123456" not in json.dumps(reply.body)

    async def told() -> bool:
        _, events = await federated.lab.cluster.request("GET", "/apis/events.k8s.io/v1/namespaces/federated/events")
        return "ProofMismatch" in {event["reason"] for event in events["items"]}

    await until(told, what="the Event is there")
