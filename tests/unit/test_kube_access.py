"""What an account may do is asked as that account, and an answer that is not whole is no answer."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.kube.access import MAX_REVIEW_BYTES, KubeAccess
from broker.model.access import Action, read_review, unread_review
from broker.model.api_resources import DISCOVERY_TYPE, parse_catalogue
from broker.model.sensitive import Sensitive
from tests.support.asked import answered, body, document, line, status
from tests.support.discovery import CORE, GROUPS
from tests.support.scripted import Reply, answer, says

TOKEN = Sensitive("of.the.account")
GET_PODS = Action("get", "", "pods")
ROOT = "/apis/authorization.k8s.io/v1"


async def test_rules_are_asked_for_as_the_account(tmp_path: Path) -> None:
    """With its own token and not the broker's, for one namespace."""
    rules = {"resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}], "nonResourceRules": []}
    async with answered(tmp_path, document({"status": rules | {"incomplete": False}}, 201)) as (session, server):
        found = await KubeAccess(session).rules(TOKEN, "shop")

    assert found == read_review({"resourceRules": rules["resourceRules"]})
    assert len(found.rules) == 1
    assert line(server.requests[0]) == f"POST {ROOT}/selfsubjectrulesreviews"
    assert b"\r\nAuthorization: Bearer of.the.account\r\n" in server.requests[0]
    assert body(server.requests[0]) == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "shop"},
    }


async def test_rules_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    """They are too many, and not an API server that is away; the next question finds another connection."""
    few = {"resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}
    sizes = (2 * MAX_REVIEW_BYTES, 9)
    large, small = (document({"status": few | {"evaluationError": "x" * size}}, 201) for size in sizes)
    async with answered(tmp_path, large, small) as (session, _):
        found = [await KubeAccess(session).rules(TOKEN, "shop") for _ in range(2)]

    assert found[0] == unread_review(MAX_REVIEW_BYTES)
    assert found[0].too_many
    assert found[0].doubt == "there are rules of more than 1 MiB"
    assert len(found[1].rules) == 1


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ({"allowed": True}, True),
        ({"allowed": False}, False),
        ({"allowed": False, "denied": True}, False),
        ({}, False),
        ({"allowed": "true"}, False),
        ({"allowed": 1}, False),
    ],
)
async def test_a_single_action_is_allowed_only_by_a_plain_yes(
    tmp_path: Path, said: dict[str, Any], *, allowed: bool
) -> None:
    """Anything else is none."""
    async with answered(tmp_path, document({"status": said}, 201)) as (session, server):
        assert await KubeAccess(session).allowed(TOKEN, GET_PODS, "shop") is allowed

    assert line(server.requests[0]) == f"POST {ROOT}/selfsubjectaccessreviews"
    assert b"\r\nAuthorization: Bearer of.the.account\r\n" in server.requests[0]
    assert body(server.requests[0])["spec"]["resourceAttributes"]["namespace"] == "shop"


async def test_what_the_cluster_serves_is_asked_for_as_the_broker(tmp_path: Path) -> None:
    """The account may see less of it. Both documents count, each in the one form that has all groups in it."""
    async with answered(tmp_path, document(CORE), document(GROUPS)) as (session, server):
        catalogue = await KubeAccess(session).catalogue()

    assert catalogue == parse_catalogue(CORE, GROUPS)
    assert [line(request) for request in server.requests] == ["GET /api", "GET /apis"]
    assert all(f"\r\nAccept: {DISCOVERY_TYPE}\r\n".encode() in request for request in server.requests)
    assert all(b"\r\nAuthorization: Bearer own.token\r\n" in request for request in server.requests)


Ask = Callable[[KubeAccess], Awaitable[object]]
ASKS: dict[str, Ask] = {
    "rules": lambda access: access.rules(TOKEN, "shop"),
    "allowed": lambda access: access.allowed(TOKEN, GET_PODS, "shop"),
    "catalogue": lambda access: access.catalogue(),
}


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize(
    "reply",
    [
        status(500, "away"),
        status(401, "away"),
        status(403, "away"),
        says(answer(201, b"[]")),
        says(answer(201, b'{"status": null, "items": 1}')),
        says(answer(201, b'{"status": "yes", "items": 1}')),
        says(answer(201, b"{}")),
        says(answer(200, b"<html>")),
    ],
    ids=["500", "401", "403", "an array", "null", "a word", "nothing", "HTML"],
)
async def test_an_answer_that_is_not_whole_is_none(tmp_path: Path, name: str, reply: Reply) -> None:
    """No finding is made of it: the account counts neither as strong nor as weak."""
    async with answered(tmp_path, reply, document(GROUPS)) as (session, _):
        with pytest.raises(BrokerError) as refused:
            await ASKS[name](KubeAccess(session))

    assert refused.value.reason is Reason.KUBERNETES_UNAVAILABLE


async def test_an_overloaded_server_says_when_to_ask_again(tmp_path: Path) -> None:
    """Its word is passed on, whatever was asked."""
    busy = says(answer(429, b"{}", [b"Retry-After: 7"]))
    for ask in ASKS.values():
        async with answered(tmp_path, busy, busy) as (session, _):
            with pytest.raises(BrokerError) as refused:
                await ask(KubeAccess(session))
        assert refused.value.retry_after == 7


@pytest.mark.parametrize("name", ["rules", "allowed"])
async def test_a_question_is_asked_again_where_its_connection_was_closed(tmp_path: Path, name: str) -> None:
    """A review changes nothing, so it may be sent twice: a kept connection that ended is no fault of the account."""
    yes = {"status": {"allowed": True, "resourceRules": [], "nonResourceRules": []}}

    async def closes(writer: Any) -> None:
        writer.close()

    async with answered(tmp_path, document(yes, 201), closes, document(yes, 201)) as (session, server):
        await ASKS[name](KubeAccess(session))
        await ASKS[name](KubeAccess(session))

    assert len(server.requests) == 3
