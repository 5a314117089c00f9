"""Clients that ``client add`` registers without a secret, and a broker that takes their proofs."""

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.broker import BrokerProcess, Reply, Tenant
from tests.support.command import command_with
from tests.support.lab import Lab
from tests.support.processes import free_port

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace with an account ``web``, and a broker that has a URL which proofs can be for."""

    broker: BrokerProcess
    tenant: Tenant

    async def add(self, name: str, *proof: str) -> None:
        """Register a client of the account, and wait for the broker to know it."""
        where = ("-n", self.tenant.namespace, "--service-account", "web")
        ended = await command_with(self.tenant.cluster.kubeconfig, "client", "add", name, *where, *proof)
        assert (ended.code, ended.stdout) == (0, ""), ended.stderr
        await self.broker.until_ready(f"{self.tenant.namespace}/{name}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(installed: Lab) -> AsyncIterator[Place]:
    """Start the broker and make the namespace, once."""
    port = free_port()
    listen = {"port": port, "public_url": f"http://127.0.0.1:{port}"}
    async with BrokerProcess.start(installed, "cli-proofs", listen=listen) as broker:
        tenant = await Tenant.create(installed.cluster, "cli-proofs")
        for account in ("web", "caller"):
            await installed.cluster.request(
                "POST", "/api/v1/namespaces/cli-proofs/serviceaccounts", {"metadata": {"name": account}}
            )
        yield Place(broker, tenant)


async def test_the_account_that_was_named_may_call(place: Place) -> None:
    """With a token for the broker's URL; the account that tokens are for may not."""
    await place.add("by-account", "--caller-account", "cli-proofs/caller")

    async def ask(account: str) -> Reply:
        token = await place.tenant.cluster.token_for("cli-proofs", account, audiences=[place.broker.url])
        headers = {"Authorization": f"Bearer {token}"}
        return await place.broker.call("POST", "/v1/tokens", {"client": "cli-proofs/by-account"}, headers=headers)

    assert [(await ask(account)).status for account in ("caller", "web")] == [200, 401]


async def test_whoever_signs_with_the_key_that_was_given_may_call(place: Place, tmp_path: Path) -> None:
    """The public half in PEM is enough, and assertions may leave the key's name out."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    file = tmp_path / "public.pem"
    file.write_bytes(
        keys[0].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    await place.add("by-key", "--public-key", str(file))

    async def ask(key: ec.EllipticCurvePrivateKey) -> Reply:
        now, client = int(time.time()), "cli-proofs/by-key"
        claims = {"iss": client, "sub": client, "aud": place.broker.url, "iat": now, "exp": now + 60}
        assertion = jwt.encode(claims | {"jti": uuid.uuid4().hex}, key, "ES256")
        who = f"client_id={client}&client_assertion_type={ASSERTION}&client_assertion={assertion}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await place.broker.call(
            "POST", "/oauth2/token", data=f"grant_type=client_credentials&{who}".encode(), headers=headers
        )

    assert [(await ask(key)).status for key in keys] == [200, 401]
