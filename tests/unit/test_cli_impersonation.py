"""A kubeconfig's ``as``, as headers; what cannot be meant is refused, and never taken for nobody's name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.cli.impersonation import headers
from tests.support.command import command


def test_everything_that_a_kubeconfig_can_say() -> None:
    """Each group and each value of an extra is a header of its own; keys are escaped (RFC 3986)."""
    extra = {"example.com/teams": ["a", "b"], "reason": ["audit"]}
    user = {"token": "t", "as": "alice", "as-uid": "7", "as-groups": ["web", "ops"], "as-user-extra": extra}

    assert headers(user) == [
        ("Impersonate-User", "alice"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "web"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-example.com%2Fteams", "a"),
        ("Impersonate-Extra-example.com%2Fteams", "b"),
        ("Impersonate-Extra-reason", "audit"),
    ]


@pytest.mark.parametrize("user", [{}, {"token": "t"}])
def test_who_says_nothing_acts_in_his_own_name(user: dict[str, Any]) -> None:
    """Only who leaves all of it out does."""
    assert headers(user) == []


@pytest.mark.parametrize("more", [{}, {"as-groups": [], "as-user-extra": {}}])
def test_a_name_is_enough(more: dict[str, Any]) -> None:
    """Without groups and extras there is nothing to say of them."""
    assert headers({"as": "alice", **more}) == [("Impersonate-User", "alice")]


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"as-groups": ["web"]}, "it has as-groups without `as`"),
        ({"as-groups": []}, "it has as-groups without `as`"),
        ({"as": 7}, "its as is no text"),
        ({"as": False}, "its as is no text"),
        ({"as": None}, "its as is no text"),
        ({"as": ""}, "its as is not one line of text"),
        ({"as": " "}, "its as is not one line of text"),
        ({"as": "alice "}, "its as is not one line of text"),
        ({"as": "\talice"}, "its as is not one line of text"),
        ({"as": "alice\nAuthorization: x"}, "its as is not one line of text"),
        ({"as": "alice", "as-uid": False}, "its as-uid is no text"),
        ({"as": "alice", "as-groups": None}, "its as-groups is no list"),
        ({"as": "alice", "as-groups": [""]}, "its as-groups is not one line of text"),
        ({"as": "alice", "as-groups": ["web "]}, "its as-groups is not one line of text"),
        ({"as": "alice", "as-user-extra": {"": ["x"]}}, "its as-user-extra is not one line of text"),
        ({"as": "alice", "as-user-extra": {"x": [" y"]}}, "its as-user-extra is not one line of text"),
        ({"as": "alice", "as-groups": "web"}, "its as-groups is no list"),
        ({"as": "alice", "as-groups": [7]}, "its as-groups is no text"),
        ({"as": "alice", "as-user-extra": ["x"]}, "its as-user-extra is no mapping"),
        ({"as": "alice", "as-user-extra": {"x": "y"}}, "its as-user-extra is no list"),
    ],
)
def test_what_cannot_be_meant_is_refused(user: dict[str, Any], words: str, tmp_path: Path) -> None:
    """The command ends with 2, before anything is sent."""
    config = {
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "it", "user": {"token": "t", **user}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    ended = command("client", "list", "--kubeconfig", str(tmp_path / "config"))

    assert ended.code == 2, ended.stderr
    assert words in ended.stderr
