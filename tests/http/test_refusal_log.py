"""A refusal's line in the log says who called: proved, or only claimed, and nothing that a stranger made up."""

import json
from typing import Any

import pytest

from broker.identity import secret
from tests.support.broker import BrokerProcess, Tenant


async def refused(broker: BrokerProcess, auth: tuple[str, str], **asked: Any) -> dict[str, Any]:
    """Ask for a token in vain, and return the line about it."""
    reply = await broker.call("POST", "/v1/tokens", asked, auth=auth)
    assert reply.status >= 400, reply.body
    lines = [json.loads(line) for line in broker.program.log.read_text().splitlines() if line.startswith("{")]
    (found,) = [it for it in lines if it.get("request_id") == reply.body["request_id"]]
    return dict(found)


async def test_a_client_that_proved_itself_is_named(broker: BrokerProcess, tenant: Tenant) -> None:
    """So that an operator sees whose requests fail."""
    client = await tenant.ready_client("web")
    await broker.until_ready(client.id)
    line = await refused(broker, client.auth, ttl="23h")

    assert (line["reason"], line["client"]) == ("ttl_out_of_range", client.id)
    assert "claimed_client" not in line


async def test_a_client_that_did_not_is_only_claimed(broker: BrokerProcess, tenant: Tenant) -> None:
    """Whether there is one of that name or not: anybody can name it."""
    client = await tenant.ready_client("web")
    for name in (client.id, f"{tenant.namespace}/nobody"):
        line = await refused(broker, (name, secret.generate().reveal()))

        assert (line["reason"], line["claimed_client"]) == ("invalid_client", name)
        assert "client" not in line


@pytest.mark.parametrize(
    "name",
    [
        "",
        "web",
        "shop/",
        "shop/web\nforged",
        '{"event":"x"}',
        "shop/Web",
        "shop/" + "x" * 300,
        "shop/\x1b[2J",
        "shop/a/b",
    ],
)
async def test_what_can_be_no_client_is_not_repeated(broker: BrokerProcess, name: str) -> None:
    """Lines, colours, kilobytes, and a secret that was put in the wrong place."""
    line = await refused(broker, (name, secret.generate().reveal()))

    assert line.keys() & {"client", "claimed_client"} == set()
    assert not name or name not in json.dumps(line, ensure_ascii=False)


async def test_a_secret_in_the_place_of_the_name_is_not_repeated(broker: BrokerProcess) -> None:
    """A secret of ours has a character that no name has."""
    misplaced = secret.generate().reveal()
    lines = [await refused(broker, (name, "x")) for name in (misplaced, f"shop/{misplaced}")]

    assert misplaced not in json.dumps(lines)
