"""What --rule means."""

import pytest

from broker.cli.errors import CommandError, ExitCode
from broker.cli.rules import Rule, parse_rule


def test_resources_are_grouped_as_a_role_needs_them() -> None:
    """Verbs and resources multiply in a Role, so each API group gets a rule of its own."""
    assert parse_rule("get,list pods,deployments.apps,pods/log,services") == [
        Rule("", ("pods", "pods/log", "services"), ("get", "list")),
        Rule("apps", ("deployments",), ("get", "list")),
    ]


def test_subresources_and_groups_with_dots_are_read() -> None:
    """The group is all behind the first dot, the subresource all behind the slash."""
    assert parse_rule("get ingresses.networking.k8s.io/status") == [
        Rule("networking.k8s.io", ("ingresses/status",), ("get",))
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not verbs, a space, and resources"),
        ("get", "is not verbs, a space, and resources"),
        ("get pods services", "is not verbs, a space, and resources"),
        ("* pods", "list the verbs"),
        ("get *", "list the resources"),
        ("get *.apps", "list the resources"),
        ("GET pods", "'GET' is not a verb"),
        ("get, pods", "'' is not a verb"),
        ("get pods,", "'' is not a resource"),
        ("get Pods", "'Pods' is not a resource"),
        ("get pods/log/x", "is not a resource"),
        ("get /metrics", "nonResourceURLs"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, words: str) -> None:
    """The refusal says what is wrong and how to write it."""
    with pytest.raises(CommandError, match="--rule") as refused:
        parse_rule(text)

    assert words in str(refused.value)
    assert refused.value.code == ExitCode.USAGE
