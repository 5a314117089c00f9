"""No token and no secret can be read in anything that the brokers of the whole run have written.

These tests run last (conftest.py), over the traces of all that ran before them. Alone, they have traces of their own:
brokers of each log level that live through successes, refusals, callers that put their secret in the wrong place, and
an outage.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.errors import Reason
from tests.support.broker import AUDIT, CONFIG, METRICS, REPLIES, BrokerProcess, Registered, Tenant
from tests.support.lab import Lab
from tests.support.leaks import Output, Search
from tests.support.marks import own_cluster
from tests.support.outputs import LABELS, REQUESTS, RESOURCES, homes, leaks, log_of, outputs, sought
from tests.support.processes import until
from tests.support.witness import Kind, kubernetes_flags

LEVELS = ("debug", "info", "warning", "error")
VAULT: dict[str, Any] = {"deliver": "vault"}


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def told(installed: Lab) -> AsyncIterator[Lab]:
    """Let a broker of each log level live through a story, which end together."""
    async with AsyncExitStack() as stack:
        brokers = [
            await stack.enter_async_context(BrokerProcess.start(installed, f"level-{level}", log_level=level))
            for level in LEVELS
        ]
        clients = await asyncio.gather(*(live(broker, installed) for broker in brokers))
        await installed.vault.seal()
        try:
            refused = [await ask(*pair, VAULT) for pair in zip(brokers, clients, strict=True)]
        finally:
            await installed.vault.unseal()
    assert refused == [503] * len(LEVELS)
    yield installed


async def live(broker: BrokerProcess, lab: Lab) -> Registered:
    """Let a broker do everything that has to do with tokens and secrets, for a client that is returned."""
    tenant = await Tenant.create(lab.cluster, broker.folder.name)
    gone = await tenant.ready_client("gone", vault={"ttl": "1h"})
    await until(lambda: gets(broker, gone, VAULT), what="a token is in Vault")
    await tenant.cluster.request("DELETE", f"{tenant.path}/gone")
    client = await tenant.client("stays", {"serviceAccount": {"name": "reader"}, "vault": {"ttl": "1h"}})
    await until(lambda: gets(broker, client, VAULT), what="another token is in Vault")
    await until(lambda: gets(broker, client, {}), what="a token is handed out", programs=(broker.program,))
    token = (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).body["token"]
    for value in (client.secret, token):
        await misplace(broker, client, value)
    return client


async def misplace(broker: BrokerProcess, client: Registered, value: str) -> None:
    """Send a secret to all the places where it does not belong."""
    bodies = [{field: value} for field in ("client", "grant", "ttl", "audience", "deliver", value)]
    for body in (*bodies, {"grant": value, "deliver": "vault"}, [value], value):
        await broker.call("POST", "/v1/tokens", body, auth=client.auth)
    for path in (f"/v1/tokens/{value}", f"/v1/grants?secret={value}", f"/{value}"):
        await broker.call("GET", path, auth=client.auth)
    for auth in ((value, client.secret), (value, value), (client.id, f"{value}x"), (f"{client.id}:{value}", "")):
        await broker.call("POST", "/v1/tokens", {}, auth=auth)
    for header in ({"Authorization": f"Bearer {value}"}, {"X-Request-Id": value}, {"Content-Type": value}):
        await broker.call("POST", "/v1/tokens", data=b"{}", headers=header)


async def ask(broker: BrokerProcess, client: Registered, body: dict[str, Any]) -> int:
    """Ask for a token, and return the status."""
    return (await broker.call("POST", "/v1/tokens", body, auth=client.auth)).status


async def gets(broker: BrokerProcess, client: Registered, body: dict[str, Any]) -> bool:
    """Tell whether a client gets what it asks for."""
    return await ask(broker, client, body) == 200


async def test_no_token_or_secret_is_in_anything_that_was_written(told: Lab, client_secrets: list[str]) -> None:
    """Logs, audit, metrics, answers, statuses, Events, requests, metadata: no value of the run is in any of them."""
    assert await leaks(told, client_secrets) == []


async def test_brokers_of_every_level_were_heard(told: Lab) -> None:
    """Each left its log, and records of all that is to be searched."""
    levels = {yaml.safe_load((home / CONFIG).read_text())["log_level"] for home in homes(told.folder)}
    sources = {output.source for output in await outputs(told)}

    assert levels == set(LEVELS)
    for level in LEVELS:
        home = f"level-{level}"
        assert {f"{home}.log", f"{home}/{AUDIT}", f"{home}/{METRICS}", f"{home}/{REPLIES}"} <= sources


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("level-debug.log", ["broker.started", "http.refused", "invalid_client", "vault_unavailable"]),
        ("level-info.log", ["broker.started", "http.refused", "ttl_out_of_range", "broker.stopping"]),
        ("level-warning.log", ["vault_unavailable"]),
        (f"level-debug/{AUDIT}", ["token.issued", '"delivery":"vault"', "token.refused", "audience_not_allowed"]),
        (f"level-debug/{METRICS}", ["tokenbroker_tokens_issued_total{", 'reason="wrong_secret"']),
        (f"level-debug/{REPLIES}", ["expirationTimestamp", '"version": 2', "grant_unknown", "WWW-Authenticate"]),
        (RESOURCES, ["VaultSynced", "renewalTime", '"reason": "Synced"']),
        pytest.param(REQUESTS, ["/events", "/tokenclients/", "/status", "tokenbroker-anchor-"], marks=own_cluster),
        (LABELS, ["anchor-uid", "managed-by"]),
    ],
)
async def test_what_was_searched_is_what_happened(told: Lab, source: str, words: list[str]) -> None:
    """Each output tells of issuing, denying or rotating: it was not searched for being empty."""
    [text] = [output.text for output in await outputs(told) if output.source == source]

    assert [word for word in words if word not in text] == []


@own_cluster
async def test_every_token_of_the_audit_logs_was_looked_for(told: Lab, client_secrets: list[str]) -> None:
    """The digests of what was handed out or kept are digests of values that the search knows."""
    values = sought(told, client_secrets)
    known = {hashlib.sha256(value.encode()).hexdigest() for several in values.values() for value in several}
    texts = [output.text for output in await outputs(told) if output.source.endswith(AUDIT)]
    records = [json.loads(line) for text in texts for line in text.splitlines()]
    issued = {record["token_sha256"] for record in records if record["event"] == "token.issued"}

    assert len(issued) >= 3 * len(LEVELS)
    assert issued <= known


@own_cluster
async def test_nothing_that_the_servers_wrote_down_was_put_aside(told: Lab, tmp_path: Path) -> None:
    """The API server has one audit log, however much was written: what it puts aside would not be searched."""
    assert "--audit-log-maxsize=100000" in kubernetes_flags(tmp_path)
    assert [file.name for file in told.folder.glob("kubernetes-audit*.log*")] == ["kubernetes-audit.log"]


@own_cluster
@pytest.mark.parametrize("kind", Kind)
async def test_planted_value_would_be_found(told: Lab, client_secrets: list[str], kind: Kind) -> None:
    """There are values of each kind, and any of them is found in a line of the log, in HTTP Basic, or cut off."""
    values = sought(told, client_secrets)
    search = Search(values)
    line = log_of(told.folder / "level-debug").read_text().splitlines()[-1]
    assert values[kind]

    for value in values[kind]:
        basic = base64.b64encode(f"some/body:{value}".encode()).decode()
        for planted in (value, basic, value[: len(value) // 2 + 10]):
            assert search.leaks([Output("planted", line.replace('"event":"', f'"event":"{planted}'))])


def test_reasons_are_words_and_no_values() -> None:
    """What stands in logs, metrics and answers as the reason comes from a closed list."""
    assert not Search({}).leaks([Output("reasons", "\n".join(Reason))])
