"""openapi.yaml and the code know the same routes, fields, codes and answers, in both directions."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from aiohttp import web

from broker.errors import BrokerError, Reason
from broker.http.api import Contract, Endpoints, api_router
from broker.http.formats import FORMATS
from broker.http.metadata import MetadataEndpoint
from broker.http.oauth_errors import ERRORS, oauth_error
from broker.http.oauth_proofs import GRANT_TYPES, ISSUED_TOKEN_TYPES, SUBJECT_TOKEN_TYPES
from broker.http.problems import STATUS, problem_headers
from broker.http.router import ANY
from broker.http.tokens import DELIVERIES, FIELDS, FLAGS
from tests.support.broker import ROOT

CONTRACT: dict[str, Any] = yaml.safe_load((ROOT / "openapi.yaml").read_text())
SCHEMAS, EXAMPLES = CONTRACT["components"]["schemas"], CONTRACT["components"]["examples"]
OPERATIONS = {(method, path): said for path, item in CONTRACT["paths"].items() for method, said in item.items()}
OAUTH = "/oauth2/"


class Nothing:
    """Stands for endpoints and metrics: only their routes are looked at."""

    async def post(self, request: web.BaseRequest) -> web.Response:
        """Never called."""
        raise AssertionError(request)

    get = delete = post

    def problem(self, reason: Reason) -> None:
        """Never called."""
        raise AssertionError(reason)


def routes() -> set[tuple[str, str]]:
    """Return method and path of everything that the application answers, but for refusals."""
    nothing: Any = Nothing()
    metadata = MetadataEndpoint("https://broker.example", frozenset())
    endpoints = Endpoints(nothing, nothing, nothing, nothing, nothing, metadata, Contract(""))
    router = api_router(endpoints, new_request_id=str, metrics=nothing)
    return {(method.lower(), path.replace("{last}", "{id}")) for method, path in router.routes() if method != ANY}


def test_routes() -> None:
    """None is missing on either side."""
    assert routes() == set(OPERATIONS)


def test_fields_of_a_request_for_a_token() -> None:
    """Names, kinds, formats and deliveries."""
    fields = SCHEMAS["TokenAsk"]["properties"]

    assert set(fields) == FIELDS
    assert {name for name, field in fields.items() if field.get("type") == ["boolean", "null"]} == FLAGS
    assert set(fields["format"]["enum"]) == {None, *FORMATS}
    assert set(fields["deliver"]["enum"]) == DELIVERIES


def test_values_of_oauth() -> None:
    """Grant types, token types and error words."""
    kinds = [SCHEMAS[kind["$ref"].rpartition("/")[2]]["properties"] for kind in SCHEMAS["OauthAsk"]["oneOf"]]
    exchange = SCHEMAS["TokenExchange"]["properties"]
    words = {*ERRORS.values(), "invalid_request", "invalid_grant", "temporarily_unavailable"}

    assert [kind["grant_type"]["const"] for kind in kinds] == list(GRANT_TYPES)
    assert set(exchange["subject_token_type"]["enum"]) == SUBJECT_TOKEN_TYPES
    assert set(exchange["requested_token_type"]["enum"]) == ISSUED_TOKEN_TYPES
    assert set(SCHEMAS["OauthError"]["properties"]["error"]["enum"]) == words


def answers() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield path, status, media type and what is said of each answer."""
    for (_, path), operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            for media, said in response.get("content", {}).items():
                yield path, status, media, said


@pytest.mark.parametrize(("path", "status", "media", "said"), tuple(answers()), ids=lambda value: str(value)[:40])
def test_every_answer_has_examples_that_are_right(path: str, status: str, media: str, said: dict[str, Any]) -> None:
    """Each of them follows its schema; those of refusals are of the status and the kind that are sent there."""
    assert said["examples"]
    schema = said["schema"] | {"components": CONTRACT["components"]}
    for name, example in said["examples"].items():
        value = EXAMPLES[example["$ref"].rpartition("/")[2]]["value"] if "$ref" in example else example["value"]
        jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
        if status != "200":
            error = BrokerError(Reason(name), "")
            expected = oauth_error(error, "").status if path.startswith(OAUTH) else STATUS[error.reason]
            assert (value["code"], expected) == (name, int(status))
            assert media == ("application/json" if path.startswith(OAUTH) else "application/problem+json")


def test_every_code_has_an_example_and_a_place() -> None:
    """No reason that nobody is told, and no example that is never used."""
    named = {name for _, status, _, said in answers() if status != "200" for name in said["examples"]}
    shown = (example for *_, said in answers() for example in said["examples"].values())
    used = {example["$ref"].rpartition("/")[2] for example in shown if "$ref" in example}

    assert named == {reason.value for reason in Reason}
    assert used == set(EXAMPLES)


def test_requests_have_examples_that_are_right() -> None:
    """Each follows the schema of its body."""
    for operation in OPERATIONS.values():
        for said in operation.get("requestBody", {}).get("content", {}).values():
            assert said["examples"]
            for example in said["examples"].values():
                schema = said["schema"] | {"components": CONTRACT["components"]}
                jsonschema.validate(example["value"], schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("reason", Reason)
def test_headers_of_refusals(reason: Reason) -> None:
    """Those that a refusal carries are in the contract, wherever it can come."""
    error = BrokerError(reason, "", retry_after=1 if STATUS[reason] in {429, 503, 504} else None, allow="POST")
    if reason is not Reason.METHOD_NOT_ALLOWED:
        error.allow = ""
    sent = set(problem_headers(error))
    for operation in OPERATIONS.values():
        response = operation["responses"].get(str(STATUS[reason]))
        if response and any(reason in said["examples"] for said in response.get("content", {}).values()):
            assert sent == set(response["headers"])
