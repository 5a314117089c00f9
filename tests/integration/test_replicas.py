"""What two replicas know together, and what each knows by itself; docs/leader.md has a row for each of these tests."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest_asyncio

from broker.services.failure_limit import BURST
from tests.support.broker import BrokerProcess, Registered, Reply, Tenant
from tests.support.issuer import SigningKey
from tests.support.lab import Lab
from tests.support.processes import free_port, until

URL = "https://tokenbroker.example"
GRANTS: list[dict[str, Any]] = [
    {"name": "single", "revocation": "Token", "serviceAccount": {"name": "reader"}},
    {"name": "kept", "vault": {"ttl": "1h"}, "serviceAccount": {"name": "reader"}},
]
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEAD_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replicas with one Lease, and a client of theirs."""

    lab: Lab
    tenant: Tenant
    leader: BrokerProcess
    follower: BrokerProcess
    client: Registered

    async def ask(self, broker: BrokerProcess, grant: str = "single", **more: Any) -> Reply:
        """Ask a replica for a token."""
        return await broker.call("POST", "/v1/tokens", {"grant": grant, **more}, auth=self.client.auth)

    async def form(self, broker: BrokerProcess, path: str, **fields: str) -> Reply:
        """Send a form to a replica."""
        data = "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items()).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        auth = None if "client_assertion" in fields else self.client.auth
        return await broker.call("POST", path, data=data, headers=headers, auth=auth)

    async def until_dead(self, token: str) -> None:
        """Wait until the API server refuses a token."""
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

        async def dead() -> bool:
            return (await self.lab.cluster.request("POST", path, {}, token=token))[0] == 401

        await until(dead, what="the token is refused", seconds=DEAD_SECONDS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(installed: Lab) -> AsyncIterator[Pair]:
    """Run them, and wait until both serve the client."""
    name = f"both-{secrets.token_hex(4)}"
    lease = {"name": name, "duration_seconds": 15}
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(
                BrokerProcess.start(
                    installed, f"{name}-{number}", lease=lease, listen={"port": free_port(), "public_url": URL}
                )
            )
            for number in (1, 2)
        ]
        await until(lambda: _leads(one), what="the first leads", programs=(one.program,))
        tenant = await Tenant.create(installed.cluster, "two-of-them")
        await tenant.account("reader")
        client = await tenant.client("web", *GRANTS)
        await tenant.until_reason("web", "Ready")
        made = Pair(installed, tenant, one, two, client)
        await until(lambda: _synced(tenant), what="the copy is there", programs=(one.program,))
        for broker in (one, two):
            await until(partial(_serves, made, broker), what="both serve", programs=(broker.program,))
        yield made


async def test_a_token_is_revoked_at_another_replica_than_gave_it(pair: Pair) -> None:
    """By its id and by itself, either way round: anchors are found by their names, which nobody has to remember."""
    given = {name: (await pair.ask(broker)).body for name, broker in _both(pair).items()}
    by_id = await pair.follower.call("DELETE", f"/v1/tokens/{given['leader']['id']}", auth=pair.client.auth)
    by_token = await pair.form(pair.leader, "/oauth2/revoke", token=given["follower"]["token"])

    assert (by_id.status, by_token.status) == (204, 200)
    for body in given.values():
        await pair.until_dead(body["token"])


async def test_a_token_is_introspected_at_another_replica_than_gave_it(pair: Pair) -> None:
    """Both ask the API server."""
    token = (await pair.ask(pair.leader)).body["token"]
    reply = await pair.form(pair.follower, "/oauth2/introspect", token=token)

    assert (reply.body["active"], reply.body["scope"]) == (True, "single")


async def test_a_follower_writes_a_fresh_version_into_vault(pair: Pair) -> None:
    """It goes over the version that it read, so that whoever comes next goes on from there: none is lost."""
    first = await pair.ask(pair.follower, "kept", deliver="vault")
    second = await pair.ask(pair.leader, "kept", deliver="vault")
    third = await pair.ask(pair.follower, "kept", deliver="vault")
    versions = [reply.body["vault"]["version"] for reply in (first, second, third)]

    assert [reply.status for reply in (first, second, third)] == [200, 200, 200]
    assert versions == [versions[0], versions[0] + 1, versions[0] + 2]


async def test_a_suspension_is_in_force_at_both(pair: Pair) -> None:
    """Each of them watches; and both serve again when it is over."""
    tokens = [(await pair.ask(broker)).body["token"] for broker in _both(pair).values()]
    await pair.tenant.patch("web", {"suspend": True})
    for broker in _both(pair).values():
        await until(partial(_refuses, pair, broker, "client_suspended"), what="it refuses")
    for token in tokens:
        await pair.until_dead(token)
    await pair.tenant.patch("web", {"suspend": False})
    for broker in _both(pair).values():
        await until(partial(_serves, pair, broker), what="it serves again")

    assert [(await pair.ask(broker)).status for broker in _both(pair).values()] == [200, 200]


async def test_each_replica_counts_failed_proofs_by_itself(pair: Pair) -> None:
    """So with n replicas a guesser has n bursts; a right proof is accepted by all of them meanwhile."""
    wrong = (pair.client.id, pair.client.secret[:-1])
    statuses = [await _statuses(broker, wrong, BURST + 1) for broker in _both(pair).values()]

    assert statuses == [[401] * BURST + [429]] * 2
    assert [(await pair.ask(broker)).status for broker in _both(pair).values()] == [200, 200]


async def test_each_replica_remembers_assertions_by_itself(pair: Pair) -> None:
    """So one that was overheard can be used once at each, within its life: make it short."""
    key = SigningKey.create("k")
    await pair.tenant.patch(
        "web", {"authentication": [*await _proofs(pair), {"publicKeys": {"jwks": {"keys": [key.jwk]}}}]}
    )
    now = int(time.time())
    said = {"iss": pair.client.id, "sub": pair.client.id, "aud": URL, "iat": now, "exp": now + 120}

    def assertion() -> str:
        return key.sign(said | {"jti": secrets.token_hex(8)})

    async def used(broker: BrokerProcess, one: str) -> int:
        fields = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION, "scope": "single"}
        return (await pair.form(broker, "/oauth2/token", **fields, client_assertion=one)).status

    async def known(broker: BrokerProcess) -> bool:
        return await used(broker, assertion()) == 200

    for broker in _both(pair).values():
        await until(partial(known, broker), what="the key is known")
    overheard = assertion()

    statuses = [await used(broker, overheard) for broker in (pair.leader, pair.leader, pair.follower, pair.follower)]
    assert statuses == [200, 401, 200, 401]


def _both(pair: Pair) -> dict[str, BrokerProcess]:
    return {"leader": pair.leader, "follower": pair.follower}


async def _statuses(broker: BrokerProcess, auth: tuple[str, str], times: int) -> list[int]:
    return [(await broker.call("POST", "/v1/tokens", {}, auth=auth)).status for _ in range(times)]


async def _proofs(pair: Pair) -> list[dict[str, Any]]:
    _, found = await pair.lab.cluster.request("GET", f"{pair.tenant.path}/web")
    return list(found["spec"]["authentication"])


async def _leads(broker: BrokerProcess) -> bool:
    return "tokenbroker_leader 1.0" in (await broker.metrics()).splitlines()


async def _synced(tenant: Tenant) -> bool:
    return (await tenant.condition("web", "VaultSynced")).get("status") == "True"


async def _serves(pair: Pair, broker: BrokerProcess) -> bool:
    return (await pair.ask(broker)).status == 200


async def _refuses(pair: Pair, broker: BrokerProcess, code: str) -> bool:
    return bool((await pair.ask(broker)).body.get("code") == code)
