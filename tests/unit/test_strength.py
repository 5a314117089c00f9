"""What makes an account strong, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.model.access import MAX_RULES, Action, PolicyRule, Rules, grants, read_review, unread_review
from broker.model.strength import Strength, strength_of, strong_questions, strong_reasons

RBAC = "rbac.authorization.k8s.io"


@pytest.mark.parametrize(
    ("verb", "group", "resource"),
    [
        ("create", "", "serviceaccounts/token"),
        ("create", "", "pods"),
        ("patch", "", "pods"),
        ("update", "", "replicationcontrollers"),
        ("create", "apps", "deployments"),
        ("patch", "apps", "daemonsets"),
        ("update", "apps", "statefulsets"),
        ("create", "apps", "replicasets"),
        ("create", "apps", "controllerrevisions"),
        ("update", "apps", "controllerrevisions"),
        ("create", "batch", "jobs"),
        ("patch", "batch", "cronjobs"),
        ("create", "", "pods/exec"),
        ("get", "", "pods/exec"),
        ("get", "", "pods/attach"),
        ("patch", "", "pods/ephemeralcontainers"),
        ("get", "", "nodes/proxy"),
        ("create", "", "secrets"),
        ("get", "", "secrets"),
        ("list", "", "secrets"),
        ("watch", "", "secrets"),
        ("delete", "", "secrets"),
        ("deletecollection", "", "secrets"),
        ("create", RBAC, "rolebindings"),
        ("patch", RBAC, "clusterrolebindings"),
        ("escalate", RBAC, "roles"),
        ("bind", RBAC, "clusterroles"),
        ("update", RBAC, "roles"),
        ("impersonate", "", "users"),
        ("impersonate", "", "groups"),
        ("impersonate", "", "serviceaccounts"),
        ("impersonate:user-info", "authentication.k8s.io", "users"),
        ("create", "tokenbroker.dev", "tokenclients"),
        ("patch", "tokenbroker.dev", "tokenclients/status"),
        ("patch", "", "namespaces"),
        ("update", "", "namespaces"),
        ("patch", "", "namespaces/status"),
        ("update", "", "namespaces/finalize"),
        ("create", "certificates.k8s.io", "certificatesigningrequests"),
        ("update", "certificates.k8s.io", "certificatesigningrequests/approval"),
        ("sign", "certificates.k8s.io", "signers"),
        ("create", "certificates.k8s.io", "podcertificaterequests"),
        ("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
        ("delete", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        ("create", "admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
        ("create", "flowcontrol.apiserver.k8s.io", "flowschemas"),
        ("patch", "flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
        ("create", "apiregistration.k8s.io", "apiservices"),
        ("patch", "apiextensions.k8s.io", "customresourcedefinitions"),
        ("update", "apiextensions.k8s.io", "customresourcedefinitions/status"),
    ],
)
def test_strong(verb: str, group: str, resource: str) -> None:
    """One such right is enough, and the reason names it, why, and the rule that gives it."""
    rule = PolicyRule((verb,), (group,), (resource,))
    (reason,) = strong_reasons(Rules((rule,)))

    assert reason.rule is rule
    assert str(reason).startswith(f"it may {verb} {resource.partition('/')[0]}")
    assert str(reason).endswith(f", which {reason.why} (by the rule {rule})")


@pytest.mark.parametrize(
    "rule",
    [
        PolicyRule(("get", "list", "watch"), ("", "apps"), ("pods", "pods/log", "services", "deployments", "nodes")),
        PolicyRule(("create", "update", "patch", "delete"), ("",), ("configmaps", "services", "serviceaccounts")),
        PolicyRule(("get", "patch", "update"), ("apps",), ("*/scale", "deployments/status")),
        PolicyRule(("get",), ("",), ("nodes/metrics", "nodes/stats")),
        PolicyRule(("delete",), ("",), ("pods", "configmaps", "namespaces")),
        PolicyRule(("get", "list", "watch", "create"), ("",), ("namespaces",)),
        PolicyRule(("get", "list", "watch", "delete"), ("apps",), ("controllerrevisions",)),
        PolicyRule(("create", "update", "patch"), ("",), ("podtemplates", "resourcequotas", "endpoints")),
        PolicyRule(("create",), ("",), ("pods/eviction", "pods/binding")),
        PolicyRule(("create",), ("",), ("pods", "secrets"), ("web",)),
        PolicyRule(("create",), ("example.com",), ("pods", "secrets")),
        PolicyRule(("get",), urls=("*",)),
        PolicyRule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
    ],
)
def test_not_strong(rule: PolicyRule) -> None:
    """Reading, scaling, deleting, and what is limited so that it gives nothing."""
    assert strong_reasons(Rules((rule,))) == ()


@pytest.mark.parametrize(
    "rule",
    [
        PolicyRule(("get",), ("",), ("secrets",), ("one",)),
        PolicyRule(("patch",), ("apps",), ("deployments",), ("web",)),
        PolicyRule(("create",), ("",), ("serviceaccounts/token",), ("web",)),
        PolicyRule(("create",), ("",), ("pods",), ("",)),
        PolicyRule(("create",), ("",), ("*/token",)),
        PolicyRule(("*",), ("",), ("pods",), ("web",)),
        PolicyRule(("create",), ("*",), ("*",)),
        PolicyRule(("*",), ("*",), ("*",), ("web",)),
    ],
)
def test_limited_and_wide_rights_make_strong_too(rule: PolicyRule) -> None:
    """A right to one object is enough, and so is a wildcard; neither is everything."""
    reasons = strong_reasons(Rules((rule,)))

    assert reasons
    assert "do everything" not in {reason.what for reason in reasons}


def test_who_may_do_everything_has_one_reason() -> None:
    """A list of all would say less."""
    rule = PolicyRule(("*",), ("*",), ("*",))
    reasons = strong_reasons(Rules((PolicyRule(("get",), ("",), ("secrets",)), rule)))

    assert reasons == (Strength("do everything", "is all of the cluster or namespace", rule),)


def test_a_reason_is_told_once_with_all_its_verbs() -> None:
    """Equal rules of two Roles are one reason."""
    rule = PolicyRule(("get", "list"), ("",), ("secrets",))

    (reason,) = strong_reasons(Rules((rule, rule)))
    assert reason.what == "get,list secrets"


def test_the_authorizer_can_be_asked_for_each_power() -> None:
    """Each question has a meaning, and is about a right that the rules would show."""
    questions = strong_questions("shop")

    assert Action("create", "", "serviceaccounts", "token") in questions
    assert Action("impersonate", "", "users", namespaced=False) in questions
    for question in questions:
        meaning = strength_of(question)
        (reason,) = strong_reasons(Rules((PolicyRule((question.verb,), (question.group,), (question.combined,)),)))
        assert (meaning.what, meaning.why) == (reason.what, reason.why)
    assert str(strength_of(questions[0])) == "it may create serviceaccounts/token, which mints tokens by itself"


def test_the_authorizer_is_asked_about_the_accounts_own_namespace() -> None:
    """In that namespace, where a Role counts; each question once."""
    questions = strong_questions("shop")
    asked = [it.attributes("shop")["resourceAttributes"] for it in questions if it.on_namespaces]

    assert {(it["namespace"], it["name"]) for it in asked} == {("shop", "shop")}
    assert {(it["verb"], it["subresource"]) for it in asked} == {
        (verb, part) for verb in ("update", "patch") for part in ("", "status", "finalize")
    }
    assert len(set(questions)) == len(questions)


def test_more_rules_than_are_looked_at_make_strong() -> None:
    """What they give is not known: nothing can hide behind many rules that give nothing."""
    junk = [{"verbs": [f"v{number}"], "apiGroups": [""], "resources": ["pods"]} for number in range(MAX_RULES)]
    last = {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"]}
    (reason,) = strong_reasons(read_review({"resourceRules": [*junk, last]}))

    assert str(reason) == "it may do what more than 2000 rules say, which is more than is looked at"
    assert strong_reasons(read_review({"resourceRules": junk})) == ()


def test_rules_that_are_too_large_to_read_make_strong() -> None:
    """A rule is repeated for each binding of its Role: nothing can hide behind the size of an answer."""
    (reason,) = strong_reasons(unread_review(1024**2))

    assert str(reason) == "it may do what rules of more than 1 MiB say, which is more than is looked at"


def test_a_question_of_others_means_nothing() -> None:
    """Reading pods makes nobody strong."""
    with pytest.raises(LookupError):
        strength_of(Action("get", "", "pods"))


@given(
    verbs=st.lists(st.sampled_from(["get", "create", "patch", "bind", "*"]), max_size=2).map(tuple),
    groups=st.lists(st.sampled_from(["", "apps", RBAC, "*"]), max_size=2).map(tuple),
    resources=st.lists(
        st.sampled_from(["pods", "pods/exec", "secrets", "roles", "deployments", "*/token", "*"]), max_size=3
    ).map(tuple),
)
def test_who_is_not_strong_may_do_none_of_it(
    verbs: tuple[str, ...], groups: tuple[str, ...], resources: tuple[str, ...]
) -> None:
    """What RBAC grants of the questions, the reasons show."""
    rules = Rules((PolicyRule(verbs, groups, resources),))

    assert bool(strong_reasons(rules)) is any(grants(rules, question) for question in strong_questions("shop"))
