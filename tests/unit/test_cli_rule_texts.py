"""What --rule and --cluster-wide-rule mean."""

from collections.abc import Callable

import pytest

from broker.cli.client.rule_texts import parse_cluster_wide_rule, parse_rule
from broker.cli.errors import CommandError, ExitCode
from broker.model.access import PolicyRule

BOTH = (parse_rule, parse_cluster_wide_rule)


@pytest.mark.parametrize("parse", BOTH)
@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (
            "get,list pods,deployments.apps,pods/log,services",
            [
                PolicyRule(("get", "list"), ("",), ("pods", "pods/log", "services")),
                PolicyRule(("get", "list"), ("apps",), ("deployments",)),
            ],
        ),
        (
            "get ingresses.networking.k8s.io/status",
            [PolicyRule(("get",), ("networking.k8s.io",), ("ingresses/status",))],
        ),
        ("* *", [PolicyRule(("*",), ("",), ("*",))]),
        ("get *.*", [PolicyRule(("get",), ("*",), ("*",))]),
        ("get *.apps", [PolicyRule(("get",), ("apps",), ("*",))]),
        ("update *.*/scale", [PolicyRule(("update",), ("*",), ("*/scale",))]),
        ("impersonate:user-info users", [PolicyRule(("impersonate:user-info",), ("",), ("users",))]),
    ],
)
def test_a_rule_is_read(parse: Callable[[str], list[PolicyRule]], text: str, rules: list[PolicyRule]) -> None:
    """Verbs and resources multiply in a Role, so each API group gets a rule of its own; the group ends at the slash."""
    assert parse(text) == rules


def test_urls_are_for_the_whole_cluster() -> None:
    """They get a rule beside that of resources."""
    assert parse_cluster_wide_rule("get nodes/metrics,/metrics,/logs/*") == [
        PolicyRule(("get",), ("",), ("nodes/metrics",)),
        PolicyRule(("get",), urls=("/metrics", "/logs/*")),
    ]
    assert parse_cluster_wide_rule("get /") == [PolicyRule(("get",), urls=("/",))]


@pytest.mark.parametrize("parse", BOTH)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not verbs, a space, and resources"),
        ("get", "is not verbs, a space, and resources"),
        ("get pods services", "is not verbs, a space, and resources"),
        ("GET pods", "'GET' is not a verb"),
        ("get, pods", "'' is not a verb"),
        ("get pods,", "'' is not a resource"),
        ("get Pods", "'Pods' is not a resource"),
        ("get pods/log/x", "is not a resource"),
        ("get pods/*", "is not a resource"),
    ],
)
def test_what_cannot_be_meant_is_refused(parse: Callable[[str], list[PolicyRule]], text: str, words: str) -> None:
    """The refusal says what is wrong and how to write it."""
    with pytest.raises(CommandError, match="rule") as refused:
        parse(text)

    assert words in str(refused.value)
    assert refused.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (parse_rule, "get /metrics", "use --cluster-wide-rule"),
        (parse_cluster_wide_rule, "list /metrics", "URLs have the verbs"),
        (parse_cluster_wide_rule, "get /a*b", "is not a URL path"),
    ],
)
def test_urls_that_cannot_be_meant_are_refused(parse: Callable[[str], list[PolicyRule]], text: str, words: str) -> None:
    """No namespace has URLs, and they have verbs of their own."""
    with pytest.raises(CommandError, match=words):
        parse(text)
