"""What an account may do: actions as kubectl writes them, and rules as RBAC evaluates them."""

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.model.access import (
    MAX_RULES,
    Action,
    PolicyRule,
    Rules,
    WrittenAction,
    grants,
    parse_action,
    read_review,
    read_rules,
)
from tests.support.discovery import catalogue


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("list pods", ("list", "pods", "", "", "")),
        ("get deployments.apps", ("get", "deployments.apps", "", "", "")),
        ("list jobs.batch/bar", ("list", "jobs.batch", "bar", "", "")),
        ("get pods/log", ("get", "pods", "log", "", "")),
        ("get pods --subresource=log", ("get", "pods", "", "log", "")),
        ("get --subresource log pods/web", ("get", "pods", "web", "log", "")),
        ("get /metrics", ("get", "", "", "", "/metrics")),
        ("* *", ("*", "*", "", "", "")),
        ("impersonate:user-info users", ("impersonate:user-info", "users", "", "", "")),
        ("get roles/system:a/b", ("get", "roles", "system:a/b", "", "")),
        ("  get   Pods ", ("get", "Pods", "", "", "")),
    ],
)
def test_an_action_is_read_as_kubectl_reads_it(text: str, written: tuple[str, ...]) -> None:
    """What follows a slash is a name; a subresource is a flag; a leading slash is a URL."""
    assert parse_action(text) == WrittenAction(text, *written)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a verb and a resource"),
        ("pods", "is not a verb and a resource"),
        ("get pods secrets", "is not a verb and a resource"),
        ("GET pods", "'GET' is not a verb"),
        ("get,list pods", "'get,list' is not a verb"),
        ("get pods,secrets", "is not a resource, nor RESOURCE/NAME"),
        ("get pods/", "is not a resource, nor RESOURCE/NAME"),
        ("get pods/w\u00e9b", "is not a resource, nor RESOURCE/NAME"),
        ("get pods --subresource=", "'' is not a subresource"),
        ("get pods --subresource", "'' is not a subresource"),
        ("get pods --subresource=*", "'*' is not a subresource"),
        ("get /metrics --subresource=log", "a URL has no subresource"),
        ("get pods -n kube-system", "the namespace is always the client's own"),
        ("get pods --subresource=log --subresource=exec", "no option but --subresource"),
        ("get " + "p" * 253, "at most 256 characters"),
    ],
)
def test_what_is_no_action_is_refused_with_a_sentence(text: str, said: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_action(text)


def test_the_longest_action_is_taken() -> None:
    """256 characters are, 257 are not."""
    assert parse_action("get " + "p" * 252).word == "p" * 252


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("list pods", Action("list", "", "pods")),
        ("get deploy", Action("get", "apps", "deployments")),
        ("get deployments.v1.apps/web", Action("get", "apps", "deployments", name="web")),
        ("get pods --subresource=log", Action("get", "", "pods", "log")),
        ("get nodes", Action("get", "", "nodes", namespaced=False)),
        ("get nodes --subresource=metrics", Action("get", "", "nodes", "metrics", namespaced=False)),
        ("impersonate users/ann", Action("impersonate", "", "users", name="ann", namespaced=False)),
        ("get /metrics", Action("get", url="/metrics")),
        ("* *", Action("*", "", "*")),
        ("get */web --subresource=scale", Action("get", "", "*", "scale", "web")),
        ("* pods", Action("*", "", "pods")),
    ],
)
def test_an_action_is_found_in_the_cluster(text: str, action: Action) -> None:
    """The resource's word becomes its group and plural."""
    assert parse_action(text).resolved(catalogue()) == action


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("get podz", "'get podz': the cluster has no resource 'podz'; the nearest: pods."),
        ("get subjectaccessreviews", "only: create."),
        ("list pods --subresource=log", "'list' cannot be done to pods/log, only: get."),
        ("get pods --subresource=logs", "did you mean log?"),
        ("get pods/log", "'get pods/log' is about pod 'log': write 'get pods --subresource=log'."),
    ],
)
def test_an_action_that_nobody_can_do_is_refused(text: str, said: str) -> None:
    """To deny it would always hold, and to allow it never: it is not what was meant."""
    written = parse_action(text)

    with pytest.raises(ValueError, match=re.escape(said)):
        written.resolved(catalogue())


@pytest.mark.parametrize(
    "action",
    [
        Action("list", "", "pods"),
        Action("get", "apps", "deployments", "scale", "web"),
        Action("get", url="/metrics"),
    ],
)
def test_an_action_is_written_so_that_it_can_be_read(action: Action) -> None:
    """Its text is the same action again."""
    assert parse_action(str(action)).resolved(catalogue()) == action


def test_an_action_asks_about_itself() -> None:
    """The namespace is left out of questions about cluster-scoped resources."""
    log = Action("get", "", "pods", "log", "web").attributes("shop")
    node = Action("get", "", "nodes", namespaced=False).attributes("shop")

    resource = {"verb": "get", "group": "", "resource": "pods", "subresource": "log", "name": "web"}
    assert log == {"resourceAttributes": {"namespace": "shop", **resource}}
    assert node["resourceAttributes"]["namespace"] == ""
    assert Action("get", url="/metrics").attributes("shop") == {
        "nonResourceAttributes": {"verb": "get", "path": "/metrics"}
    }


def test_a_review_is_read_whole() -> None:
    """Rules on resources and URLs, with what is left out or null."""
    status = {
        "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["web"]}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}, {"verbs": None}],
        "incomplete": False,
    }

    assert read_review(status) == Rules(
        (PolicyRule(("get",), ("",), ("pods",), ("web",)), PolicyRule(("get",), urls=("/metrics",)), PolicyRule(()))
    )


@pytest.mark.parametrize(
    ("status", "doubt"),
    [
        ({}, ""),
        ({"incomplete": True}, "an authorizer of the cluster cannot list its rules"),
        ({"incomplete": True, "evaluationError": "no webhook"}, "no webhook"),
        ({"incomplete": False, "evaluationError": "no role"}, "no role"),
    ],
)
def test_a_review_that_may_lack_rules_is_doubted(status: dict[str, object], doubt: str) -> None:
    """Also where the API server says that it is complete, and names an error."""
    assert read_review(status).doubt == doubt


@pytest.mark.parametrize(
    ("rule", "action", "covered"),
    [
        (PolicyRule(("get",), ("",), ("pods",)), Action("get", "", "pods"), True),
        (PolicyRule(("get",), ("",), ("pods",)), Action("list", "", "pods"), False),
        (PolicyRule(("get",), ("apps",), ("pods",)), Action("get", "", "pods"), False),
        (PolicyRule(("get",), ("",), ("pods",)), Action("get", "", "pods", "log"), False),
        (PolicyRule(("get",), ("",), ("pods/log",)), Action("get", "", "pods"), False),
        (PolicyRule(("get",), ("",), ("pods/log",)), Action("get", "", "pods", "log"), True),
        (PolicyRule(("get",), ("",), ("pods/*",)), Action("get", "", "pods", "log"), False),
        (PolicyRule(("get",), ("*",), ("*/scale",)), Action("get", "apps", "deployments", "scale"), True),
        (PolicyRule(("get",), ("*",), ("*/scale",)), Action("get", "apps", "deployments"), False),
        (PolicyRule(("get",), ("*",), ("*/scale",)), Action("get", "apps", "deployments", "status"), False),
        (PolicyRule(("*",), ("*",), ("*",)), Action("get", "", "pods", "log"), True),
        (PolicyRule(("*",), ("*",), ("*",)), Action("get", url="/metrics"), False),
        (PolicyRule(("get",), ("",), ("pods",), ("web",)), Action("get", "", "pods"), False),
        (PolicyRule(("get",), ("",), ("pods",), ("web",)), Action("get", "", "pods", name="web"), True),
        (PolicyRule(("get",), ("",), ("pods",), ("",)), Action("get", "", "pods"), True),
        (PolicyRule(("get",), urls=("/metrics",)), Action("get", url="/metrics"), True),
        (PolicyRule(("get",), urls=("/metrics",)), Action("get", url="/metrics/x"), False),
        (PolicyRule(("get",), urls=("/metrics/*",)), Action("get", url="/metrics/x"), True),
        (PolicyRule(("get",), urls=("/metrics/**",)), Action("get", url="/metrics/x"), True),
        (PolicyRule(("get",), urls=("*",)), Action("get", url="/metrics"), True),
        (PolicyRule(("*",), urls=("/metrics",)), Action("post", url="/metrics"), True),
        (PolicyRule(("get",), urls=("/metrics",)), Action("post", url="/metrics"), False),
    ],
)
def test_a_rule_grants_what_rbac_lets_it(rule: PolicyRule, action: Action, *, covered: bool) -> None:
    """The edges of Kubernetes' own evaluation."""
    assert (grants(Rules((rule,)), action) is rule) is covered


def test_a_rule_is_written_as_kubernetes_writes_it() -> None:
    """As its messages about escalation do."""
    text = str(PolicyRule(("get", "list"), ("",), ("secrets",), ("a",)))

    assert text == '{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get" "list"]}'


def test_a_rule_with_many_names_is_written_with_some() -> None:
    """A condition has no room for more, and a log no need."""
    text = str(PolicyRule(("get",), ("",), ("nodes",), tuple("abcdefghijk")))

    assert 'ResourceNames:["a" "b" "c" "d" "e" "f" "g" "h" and 3 more]' in text


def test_rules_that_differ_in_their_names_alone_are_one() -> None:
    """A rule for any name stays apart from those for some."""
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    status = {"resourceRules": [{**rule, "resourceNames": ["a"]}, rule, {**rule, "resourceNames": ["b", "a"]}, rule]}
    one = PolicyRule(("get",), ("",), ("pods",))

    assert read_review(status).rules == (replace(one, names=("a", "b")), one)


def test_too_many_rules_are_not_all_read() -> None:
    """There is a doubt then, and it is said that there are more."""
    listed = [{"verbs": [f"v{number}"], "apiGroups": [""], "resources": ["pods"]} for number in range(MAX_RULES + 5)]
    rules = read_review({"resourceRules": listed})

    assert (len(rules.rules), rules.doubt, rules.too_many) == (
        MAX_RULES,
        "there are more than 2000 rules",
        "more than 2000 rules",
    )
    assert not read_review({"resourceRules": listed[:MAX_RULES]}).too_many


def test_a_namespace_is_asked_about_in_itself() -> None:
    """As the API server does it for a request that names one, whoever asks from wherever."""
    patch, watch, listed, status = (
        parse_action(text).resolved(catalogue())
        for text in (
            "patch namespaces/shop",
            "watch namespaces/shop",
            "list namespaces/shop",
            "get ns/shop --subresource=status",
        )
    )

    assert [it.inside("elsewhere") for it in (patch, watch, listed, status)] == ["shop", "shop", "", "shop"]
    assert patch.attributes("elsewhere")["resourceAttributes"]["namespace"] == "shop"
    assert parse_action("get namespaces").resolved(catalogue()).inside("elsewhere") == ""


def test_rules_of_a_role_are_read() -> None:
    """They have the form of a review's."""
    role = {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}

    assert read_rules(role["rules"]) == (PolicyRule(("get",), ("",), ("pods",)),)


_VERBS = ["get", "list", "*"]
_GROUPS = ["", "apps", "*"]
_RESOURCES = ["a", "b", "a/s", "b/s", "a/t", "*/s", "a/*", "*"]
_NAMES = ["x", "y", ""]
_URLS = ["/m", "/m/n", "/m*", "/m/*", "/*", "*"]


def some(values: list[str], least: int = 1) -> st.SearchStrategy[tuple[str, ...]]:
    """Return a strategy for a few of some words."""
    return st.lists(st.sampled_from(values), min_size=least, max_size=2).map(tuple)


RULES = st.one_of(
    st.builds(PolicyRule, some(_VERBS), some(_GROUPS), some(_RESOURCES), some(_NAMES, 0)),
    st.builds(PolicyRule, some(_VERBS), urls=some(_URLS)),
)
ACTIONS = st.one_of(
    st.builds(
        Action,
        st.sampled_from(["get", "list", "put"]),
        st.sampled_from(["", "apps"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "s", "t"]),
        st.sampled_from(_NAMES),
    ),
    st.builds(Action, st.sampled_from(["get", "put"]), url=st.sampled_from(["/m", "/m/n", "/mm", "/", "/k"])),
)


def everything_allowed(rule: PolicyRule) -> Iterable[tuple[str, ...]]:
    """Spell out what a rule allows in this small world, by listing instead of matching."""
    verbs = {"get", "list", "put"} if "*" in rule.verbs else set(rule.verbs)
    groups = {"", "apps"} if "*" in rule.groups else set(rule.groups)
    world = {f"{plural}{part}" for plural in "ab" for part in ("", "/s", "/t")}
    resources = {it for it in world if it in rule.resources or "*" in rule.resources}
    resources |= {"a/s", "b/s"} if "*/s" in rule.resources else set()
    names = set(rule.names) or set(_NAMES)
    urls = {"/m", "/m/n", "/mm", "/", "/k"}
    listed = {
        "/m": {"/m"},
        "/m/n": {"/m/n"},
        "/m*": {"/m", "/m/n", "/mm"},
        "/m/*": {"/m/n"},
        "/*": urls,
        "*": urls,
    }
    for verb in verbs:
        yield from ((verb, group, it, name) for group in groups for it in resources for name in names)
        yield from ((verb, url) for pattern in rule.urls for url in listed[pattern])


@given(rules=st.lists(RULES, max_size=3), action=ACTIONS)
def test_grants_is_what_listing_everything_says(rules: list[PolicyRule], action: Action) -> None:
    """Against a reference that shares no line with it."""
    key = (action.verb, action.url) if action.url else (action.verb, action.group, action.combined, action.name)
    first = next((rule for rule in rules if key in set(everything_allowed(rule))), None)

    assert grants(Rules(tuple(rules)), action) == first
