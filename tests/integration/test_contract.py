"""What the running broker answers is what openapi.yaml promises."""

from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.broker import ROOT, BrokerProcess, Reply, Tenant

CONTRACT = yaml.safe_load((ROOT / "openapi.yaml").read_text())


def check(reply: Reply, method: str, path: str) -> None:
    """Hold an answer to the contract's schema for its status; raises jsonschema.ValidationError."""
    response = CONTRACT["paths"][path][method.lower()]["responses"][str(reply.status)]
    if "$ref" in response:
        response = CONTRACT["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    media = reply.headers["Content-Type"].split(";")[0]
    schema = response["content"][media]["schema"] | {"components": CONTRACT["components"]}
    body = yaml.safe_load(reply.body) if media == "application/yaml" else reply.body
    jsonschema.validate(body, schema, cls=jsonschema.Draft202012Validator)
    for name in response.get("headers", {}):
        header = CONTRACT["components"]["headers"][response["headers"][name]["$ref"].rsplit("/", 1)[1]]
        assert name in reply.headers or not header["required"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/tokens", {}, 200),
        ("POST", "/v1/tokens", {"deliver": "vault"}, 200),
        ("POST", "/v1/tokens", {"ttl": "2h"}, 422),
        ("POST", "/v1/tokens", {"grant": "other"}, 403),
        ("POST", "/v1/tokens", {"x": "y"}, 400),
        ("GET", "/v1/grants", None, 200),
        ("POST", "/v1/tokens", {"dry_run": True}, 200),
        ("POST", "/v1/tokens", {"dry_run": True, "ttl": "2h"}, 200),
        ("POST", "/v1/tokens", {"format": "exec-credential"}, 200),
        ("POST", "/v1/tokens", {"format": "argocd-cluster"}, 200),
        ("POST", "/v1/tokens", {"format": "kubeconfig"}, 200),
    ],
)
async def test_answers_follow_the_contract(
    broker: BrokerProcess, tenant: Tenant, method: str, path: str, body: Any, status: int
) -> None:
    """Bodies match their schemas, without a field more, and the promised headers are there."""
    client = await tenant.ready_client("reader", vault={"ttl": "1h"})

    reply = await broker.call(method, path, body, auth=client.auth)

    assert reply.status == status
    check(reply, method, path)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/tokens"), ("GET", "/v1/grants")])
async def test_strangers_get_what_the_contract_says(broker: BrokerProcess, method: str, path: str) -> None:
    """401 has its problem document and WWW-Authenticate."""
    reply = await broker.call(method, path)

    assert reply.status == 401
    check(reply, method, path)


async def test_the_contract_is_served_as_it_stands_in_the_repository(broker: BrokerProcess) -> None:
    """GET /openapi.yaml needs no proof."""
    reply = await broker.call("GET", "/openapi.yaml")

    assert (reply.status, yaml.safe_load(reply.body)) == (200, CONTRACT)
