"""Whether an account has the access that its grant declares: nothing passes that was not shown."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.model.access import Action, PolicyRule, Rules, grants, parse_action, unread_review
from broker.model.expectations import MAX_QUESTIONS, Finding, Outcome, settle, verify
from broker.model.ways import COLLECTED
from tests.support.discovery import catalogue
from tests.unit.test_access import ACTIONS, RULES

NAMESPACE = "shop"
HELD, FAILED, UNKNOWN = Outcome.HELD, Outcome.FAILED, Outcome.UNKNOWN
EVERYBODYS = (
    PolicyRule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    PolicyRule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
    PolicyRule(("get", "list", "watch"), ("certificates.k8s.io",), ("clustertrustbundles",)),
    PolicyRule(("get",), urls=("/api", "/api/*", "/healthz", "/version")),
)


def rule(verbs: str, resources: str, names: str = "", group: str = "") -> PolicyRule:
    """Return a rule, written with commas."""
    return PolicyRule(tuple(verbs.split(",")), (group,), tuple(resources.split(",")), tuple(filter(None, [names])))


def urls(verb: str, url: str) -> PolicyRule:
    """Return a rule on a URL."""
    return PolicyRule((verb,), urls=(url,))


def action(text: str) -> Action:
    """Return an action of the small cluster."""
    return parse_action(text).resolved(catalogue())


@pytest.mark.parametrize(
    ("text", "held", "outcome"),
    [
        ("get pods", rule("get", "pods"), HELD),
        ("get pods", rule("*", "*", group="*"), HELD),
        ("get pods", rule("list,watch", "pods"), FAILED),
        ("get pods", rule("get", "pods", "web"), FAILED),
        ("get pods", PolicyRule(("get",), ("",), ("pods",), ("",)), FAILED),
        ("get pods/web", rule("get", "pods", "web"), HELD),
        ("get pods/web", rule("get", "pods", "other"), FAILED),
        ("get pods/web", rule("get", "pods"), HELD),
        ("get pods --subresource=log", rule("get", "pods"), FAILED),
        ("get deployments", rule("get", "deployments"), FAILED),
        ("get /metrics", urls("get", "/metrics*"), HELD),
        ("get /metrics", urls("get", "/version"), FAILED),
        ("* pods", rule("get,list", "pods"), FAILED),
        ("* *", rule("*", "*", group="*"), HELD),
    ],
)
def test_allowed_needs_a_rule_for_all_of_it(text: str, held: PolicyRule, outcome: Outcome) -> None:
    """Neither a rule for certain names nor a verb like it is enough."""
    (finding,) = verify([action(text)], [], Rules((*EVERYBODYS, held)), NAMESPACE)

    assert finding.outcome is outcome
    assert finding.rule == (held if outcome is HELD else None)


@pytest.mark.parametrize(
    ("text", "held", "outcome"),
    [
        ("get secrets", rule("get", "pods"), HELD),
        ("get secrets", rule("create,update", "secrets"), HELD),
        ("get secrets", rule("patch", "secrets"), FAILED),
        ("get secrets", rule("delete", "secrets"), FAILED),
        ("get secrets", rule("deletecollection", "secrets"), FAILED),
        ("list secrets", rule("deletecollection", "secrets"), FAILED),
        ("watch secrets", rule("deletecollection", "secrets"), FAILED),
        ("list secrets", rule("patch,delete", "secrets"), HELD),
        ("get pods", rule("update", "pods/status"), FAILED),
        ("* pods", rule("get", "pods/resize"), FAILED),
        ("get pods", rule("patch", "*/ephemeralcontainers"), FAILED),
        ("get pods", rule("get", "pods/log"), HELD),
        ("get configmaps", rule("get", "configmaps/resize"), HELD),
        ("create pods", rule("get", "pods/status"), HELD),
        ("get pods --subresource=status", rule("get", "pods"), FAILED),
        ("update pods --subresource=status", rule("update", "pods"), HELD),
        ("patch deployments --subresource=scale", rule("update", "deployments", group="apps"), FAILED),
        ("get deployments --subresource=scale", rule("delete", "deployments", group="apps"), FAILED),
        (
            "impersonate sa",
            rule("impersonate:serviceaccount", "serviceaccounts", group="authentication.k8s.io"),
            FAILED,
        ),
        ("impersonate sa", rule("impersonate", "serviceaccounts"), FAILED),
        ("impersonate users", rule("impersonate", "groups"), HELD),
        ("get secrets", rule("get", "secrets"), FAILED),
        ("get secrets", rule("list", "secrets"), FAILED),
        ("get secrets", rule("watch", "secrets"), FAILED),
        ("get secrets", rule("get", "secrets", "one"), FAILED),
        ("get secrets", rule("*", "*", group="*"), FAILED),
        ("get secrets", rule("get", "*"), FAILED),
        ("get secrets", rule("get", "secrets", group="*"), FAILED),
        ("get secrets", rule("get", "secrets", group="apps"), HELD),
        ("get secrets/one", rule("get", "secrets"), FAILED),
        ("get secrets/one", rule("list", "secrets"), FAILED),
        ("get secrets/one", rule("get", "secrets", "one"), FAILED),
        ("get secrets/one", rule("get", "secrets", "two"), HELD),
        ("list secrets", rule("get", "secrets"), HELD),
        ("list secrets", rule("watch", "secrets"), FAILED),
        ("watch secrets", rule("list", "secrets"), FAILED),
        ("update secrets", rule("patch", "secrets"), FAILED),
        ("patch secrets", rule("update", "secrets"), FAILED),
        ("create secrets", rule("update", "secrets"), HELD),
        ("delete secrets", rule("deletecollection", "secrets"), FAILED),
        ("deletecollection secrets", rule("delete", "secrets"), HELD),
        ("create pods --subresource=exec", rule("get", "pods/exec"), FAILED),
        ("get pods --subresource=exec", rule("create", "*/exec"), FAILED),
        ("get pods --subresource=log", rule("create", "pods/log"), HELD),
        ("get pods --subresource=log", rule("get", "pods"), HELD),
        ("* secrets", rule("delete", "secrets"), FAILED),
        ("* secrets", rule("sing", "secrets"), FAILED),
        ("* secrets", rule("delete", "pods"), HELD),
        ("* *", rule("delete", "pods", "web"), FAILED),
        ("* *", rule("*", "selfsubjectreviews", group="authentication.k8s.io"), FAILED),
        ("* *", rule("create", "selfsubjectreviews", group="other.example.com"), FAILED),
        ("* *", rule("get", "clustertrustbundles", group="other.example.com"), FAILED),
        ("* *", urls("get", "/metrics"), HELD),
        ("* *", rule("get", "pods/log"), FAILED),
        ("get /m", urls("get", "/metrics*"), HELD),
        ("get /metrics*", urls("get", "/m"), HELD),
        ("get /metrics/slis", urls("get", "/metrics"), HELD),
        ("get pods --subresource=log", rule("get", "pods/status"), HELD),
        ("get *", rule("list", "pods"), FAILED),
        ("get *", rule("create", "pods"), HELD),
        ("get * --subresource=log", rule("get", "pods"), HELD),
        ("get * --subresource=log", rule("get", "pods/log"), FAILED),
        ("get * --subresource=log", rule("get", "*"), FAILED),
        ("get */web", rule("get", "pods", "web"), FAILED),
        ("get */web", rule("get", "pods", "other"), HELD),
        ("get /metrics", urls("get", "/metrics"), FAILED),
        ("get /metrics", urls("get", "*"), FAILED),
        ("get /metrics", urls("get", "/met*"), FAILED),
        ("get /metrics", urls("list", "/metrics"), HELD),
        ("get /metrics", urls("post", "/metrics"), HELD),
        ("get /metrics", urls("get", "/metrics/slis"), HELD),
        ("get /metrics*", urls("get", "/metrics/slis"), FAILED),
        ("get /metrics*", urls("get", "/m*"), FAILED),
        ("get /m*", urls("get", "/metrics*"), FAILED),
        ("get /logs*", urls("get", "/metrics*"), HELD),
        ("get /logs*", urls("get", "/metrics"), HELD),
        ("* /metrics", urls("put", "/metrics"), FAILED),
        ("get events", rule("list", "events", group="events.k8s.io"), FAILED),
        ("list events.events.k8s.io", rule("watch", "events"), FAILED),
        ("* events", rule("create", "events", group="events.k8s.io"), FAILED),
        ("get events/one", rule("get", "events", "two", "events.k8s.io"), HELD),
        ("get events", rule("get", "events", group="other.example.com"), HELD),
        ("delete pods", rule("create", "pods/eviction"), FAILED),
        ("delete pods/web", rule("create", "pods/eviction", "web"), FAILED),
        ("delete pods/web", rule("create", "pods/eviction", "other"), HELD),
        ("* pods", rule("create", "pods/eviction"), FAILED),
        ("delete *", rule("create", "pods/eviction"), FAILED),
        ("delete *", rule("create", "*/eviction"), FAILED),
        ("get pods", rule("create", "pods/eviction"), HELD),
        ("deletecollection pods", rule("create", "pods/eviction"), HELD),
        ("delete configmaps", rule("create", "configmaps/eviction"), HELD),
        ("get *", rule("update", "pods/status"), FAILED),
        ("get *", rule("update", "*"), FAILED),
        ("get *", rule("update", "deployments/scale", group="apps"), HELD),
        ("update deployments", rule("update,patch", "deployments/scale", group="apps"), HELD),
        ("update pods", rule("update,patch", "pods/status"), HELD),
        ("deletecollection configmaps", rule("update,patch", "configmaps"), HELD),
    ],
)
def test_denied_fails_where_any_part_of_it_is_given(text: str, held: PolicyRule, outcome: Outcome) -> None:
    """By a wildcard, for one name, or by a verb with the same effect; what every account has is nothing."""
    (finding,) = verify([], [action(text)], Rules((*EVERYBODYS, held)), NAMESPACE)

    assert finding.outcome is outcome
    assert finding.rule == (held if outcome is FAILED else None)


@pytest.mark.parametrize(
    ("denied", "held", "outcome"),
    [
        ("bindings", rule("create", "pods/binding"), FAILED),
        ("pods/binding", rule("create", "bindings"), FAILED),
        ("pods/eviction", rule("delete", "pods"), FAILED),
        ("pods/eviction", rule("deletecollection", "pods"), FAILED),
        ("pods/eviction", rule("create,patch", "pods"), HELD),
        ("pods/binding", rule("create,patch", "pods"), HELD),
    ],
)
def test_what_is_done_to_a_pod_under_another_name_is_found(denied: str, held: PolicyRule, outcome: Outcome) -> None:
    """Binding has two names, and evicting is deleting."""
    plural, _, part = denied.partition("/")
    (finding,) = verify([], [Action("create", "", plural, part)], Rules((held,)), NAMESPACE)

    assert finding.outcome is outcome


@pytest.mark.parametrize(
    ("text", "held", "outcome"),
    [
        ("delete configmaps", rule("patch", "configmaps"), UNKNOWN),
        ("delete configmaps", rule("update", "configmaps", "one"), UNKNOWN),
        ("delete configmaps", rule("update", "configmaps/status"), UNKNOWN),
        ("delete configmaps/one", rule("patch", "configmaps"), UNKNOWN),
        ("delete *", rule("patch", "configmaps"), UNKNOWN),
        ("delete *", rule("patch", "configmaps/status"), UNKNOWN),
        ("delete */one", rule("patch", "configmaps", "one"), UNKNOWN),
        ("delete configmaps", rule("patch,delete", "configmaps"), FAILED),
        ("delete configmaps", rule("*", "configmaps"), FAILED),
        ("delete configmaps/one", rule("patch", "configmaps", "two"), HELD),
        ("delete */one", rule("patch", "configmaps", "two"), HELD),
        ("delete deployments", rule("patch", "deployments/scale", group="apps"), HELD),
        ("delete *", rule("patch", "deployments/scale", group="apps"), HELD),
        ("delete * --subresource=log", rule("patch", "pods"), HELD),
        ("create configmaps", rule("patch", "configmaps"), HELD),
        ("delete configmaps", rule("get,create", "configmaps"), HELD),
    ],
)
def test_who_may_write_an_object_may_have_it_deleted(text: str, held: PolicyRule, outcome: Outcome) -> None:
    """By the garbage collector, unless admission keeps it from that: so it is neither a pass nor a finding."""
    (finding,) = verify([], [action(text)], Rules((*EVERYBODYS, held)), NAMESPACE)

    assert finding.outcome is outcome
    if outcome is UNKNOWN:
        assert (finding.questions, finding.why) == ((), COLLECTED)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ([], HELD),
        (["patch nodes"], UNKNOWN),
        (["update nodes --subresource=status"], UNKNOWN),
        (["delete nodes"], FAILED),
        (["patch nodes", "delete nodes"], FAILED),
    ],
)
def test_that_an_object_may_be_written_is_asked_where_the_rules_do_not_tell(given: list[str], outcome: Outcome) -> None:
    """A binding to a Role shows a rule on what is the cluster's, too, and does not reach it."""
    denied, held = action("delete nodes"), rule("*", "nodes,nodes/status")
    (finding,) = verify([], [denied], Rules((held,)), NAMESPACE)
    settled = settle(finding, {question: str(question) in given for question in finding.questions})

    assert {*given} <= {str(question) for question in finding.questions}
    assert settled.outcome is outcome
    assert settled.why == (COLLECTED if outcome is UNKNOWN else "")


def test_rules_that_are_too_many_deny_nothing_by_any_answer() -> None:
    """One of them may name an object, and no question is about all names."""
    rules = unread_review(1024**2)
    named, anything, url = verify(
        [], [action("get configmaps"), action("get *"), action("get /metrics")], rules, NAMESPACE
    )
    asked = (*named.questions, *url.questions)
    no, yes = dict.fromkeys(asked, False), {**dict.fromkeys(asked, False), named.questions[0]: True}

    assert str(settle(named, no)) == (
        "deny 'get configmaps' could not be verified: there are rules of more than 1 MiB, and any may name an object"
    )
    assert settle(named, no).questions == ()
    assert settle(named, yes).outcome is FAILED
    assert (anything.outcome, anything.questions) == (UNKNOWN, ())
    assert settle(url, no).outcome is HELD


def test_incomplete_rules_deny_nothing() -> None:
    """A right that is shown is a right; one that is not shown has to be asked for."""
    allowed, missing, denied, named = verify(
        [action("get pods"), action("list pods")],
        [action("get secrets"), action("get configmaps/one")],
        Rules((rule("get", "pods"),), doubt="a webhook"),
        NAMESPACE,
    )

    assert (allowed.outcome, missing.outcome, denied.outcome, named.outcome) == (HELD, UNKNOWN, UNKNOWN, UNKNOWN)
    assert missing.questions == (action("list pods"),)
    verbs = [(it.verb, it.subresource) for it in denied.questions]
    assert verbs[:6] == [(verb, "") for verb in ("get", "list", "watch", "patch", "delete", "deletecollection")]
    assert verbs[6:] == [(verb, "status") for verb in ("get", "patch", "update")]
    assert named.questions[0] == action("get configmaps/one")


def test_incomplete_rules_show_what_is_given_all_the_same() -> None:
    """A denied right that is found fails at once."""
    (finding,) = verify([], [action("get secrets")], Rules((rule("list", "secrets"),), doubt="a webhook"), NAMESPACE)

    assert finding.outcome is FAILED


def test_rules_on_cluster_scoped_resources_have_to_be_asked_for() -> None:
    """A RoleBinding shows them, too, and they reach nothing; a name that a rule has is asked for by itself."""
    held = (rule("get", "nodes", "one"), rule("list", "nodes"))
    allow, deny = [action("list nodes"), action("delete nodes")], [action("get nodes"), action("delete nodes")]
    allowed, missing, denied, free = verify(allow, deny, Rules(held), NAMESPACE)

    assert (allowed.outcome, allowed.questions) == (UNKNOWN, (action("list nodes"),))
    assert missing.outcome is FAILED
    assert denied.outcome is UNKNOWN
    assert denied.questions == (action("get nodes/one"), action("list nodes"))
    assert free.outcome is HELD


def test_incomplete_rules_leave_open_what_nobody_named() -> None:
    """So it is asked for besides what the rules name."""
    (finding,) = verify([], [action("get nodes")], Rules((rule("get", "nodes", "one"),), "a webhook"), NAMESPACE)

    assert {action("get nodes"), action("list nodes"), action("get nodes/one")} <= set(finding.questions)


def test_the_verbs_that_a_star_stands_for_are_asked_for() -> None:
    """Those of the rules, and where there may be others, all that are known."""
    (finding,) = verify([], [action("* nodes")], Rules((rule("spin", "nodes"),)), NAMESPACE)
    (doubtful,) = verify([], [action("* nodes")], Rules((rule("spin", "nodes"),), "a webhook"), NAMESPACE)
    (wild,) = verify([], [action("* nodes")], Rules((rule("*", "nodes"),)), NAMESPACE)

    assert {it.verb for it in finding.questions} == {"spin"}
    assert {it.verb for it in doubtful.questions} >= {"*", "get", "delete", "spin"}
    assert {it.verb for it in wild.questions} >= {"*", "get", "delete"}


@pytest.mark.parametrize(
    ("text", "held", "outcome"),
    [
        ("get namespaces", rule("get", "namespaces"), FAILED),
        ("get namespaces", rule("get", "namespaces", "shop"), FAILED),
        ("get namespaces", rule("*", "*", group="*"), FAILED),
        ("get namespaces", rule("patch", "namespaces/status"), FAILED),
        ("get namespaces", rule("update", "namespaces/finalize"), FAILED),
        ("delete namespaces", rule("delete", "namespaces"), FAILED),
        ("patch namespaces", rule("update", "namespaces"), FAILED),
        ("patch namespaces", rule("patch", "namespaces/status"), FAILED),
        ("update namespaces", rule("update", "namespaces/finalize"), FAILED),
        ("update namespaces --subresource=finalize", rule("update", "namespaces/finalize"), FAILED),
        ("list namespaces", rule("watch", "namespaces"), FAILED),
        ("* namespaces", rule("patch", "namespaces"), FAILED),
        ("* namespaces", rule("spin", "namespaces"), FAILED),
        ("get namespaces/shop", rule("get", "namespaces"), FAILED),
        ("get namespaces/shop", rule("patch", "namespaces", "shop"), FAILED),
        ("get namespaces", rule("get", "namespaces", "other"), UNKNOWN),
        ("get namespaces/other", rule("get", "namespaces"), UNKNOWN),
        ("list namespaces", rule("list", "namespaces"), UNKNOWN),
        ("create namespaces", rule("*", "namespaces"), UNKNOWN),
        ("* namespaces", rule("create", "namespaces"), UNKNOWN),
        ("list namespaces", rule("get", "namespaces", "other"), HELD),
        ("delete namespaces", rule("patch", "namespaces"), UNKNOWN),
        ("get namespaces", rule("get", "nodes"), HELD),
    ],
)
def test_a_role_gives_rights_on_its_own_namespace(text: str, held: PolicyRule, outcome: Outcome) -> None:
    """A request that names a Namespace is decided in it; one that names none, or another one, is not."""
    (finding,) = verify([], [action(text)], Rules((*EVERYBODYS, held)), NAMESPACE)

    assert finding.outcome is outcome
    assert finding.rule == (None if outcome is HELD else held)


def test_rights_on_another_namespace_are_not_shown() -> None:
    """A Role there gives them: so it is asked about, however complete the rules of the own one are."""
    (finding,) = verify([], [action("get namespaces/other")], Rules((rule("get", "pods"),)), NAMESPACE)
    asked = [question.attributes(NAMESPACE)["resourceAttributes"] for question in finding.questions]

    assert finding.outcome is UNKNOWN
    assert {(it["namespace"], it["name"]) for it in asked} == {("other", "other")}
    assert {it["verb"] for it in asked} == {"get", "watch", "update", "patch", "delete"}


def test_a_namespace_is_asked_about_in_itself() -> None:
    """And as what it is besides: one of the cluster's."""
    (own,) = verify([], [action("get namespaces")], Rules((), "a webhook"), NAMESPACE)
    (other,) = verify([], [action("patch namespaces/other")], Rules((), "a webhook"), NAMESPACE)
    asked = [question.attributes(NAMESPACE)["resourceAttributes"] for question in (*own.questions, *other.questions)]
    found = {(it["verb"], it["subresource"], it["namespace"], it["name"]) for it in asked}

    assert {("get", "", "", ""), ("get", "", "shop", "shop"), ("patch", "finalize", "shop", "shop")} <= found
    assert {("patch", "", "other", "other"), ("update", "status", "other", "other")} <= found
    assert {("list", "", "", ""), ("deletecollection", "", "", "")} <= found
    assert not {("list", "", "shop", "shop"), ("patch", "", "shop", "other")} & found


@pytest.mark.parametrize(
    ("text", "held", "outcome"),
    [
        ("get namespaces/shop", rule("get", "namespaces"), HELD),
        ("patch namespaces/shop", rule("patch", "namespaces", "shop"), HELD),
        ("get namespaces/shop", rule("get", "namespaces", "other"), FAILED),
        ("get namespaces/other", rule("get", "namespaces"), UNKNOWN),
        ("get namespaces/other", rule("get", "pods"), UNKNOWN),
        ("list namespaces/shop", rule("list", "namespaces"), UNKNOWN),
        ("get namespaces", rule("get", "namespaces"), UNKNOWN),
    ],
)
def test_what_is_expected_about_its_own_namespace_is_shown_by_a_role(
    text: str, held: PolicyRule, outcome: Outcome
) -> None:
    """About others, and about all of them, the authorizer has to be asked: by the very words of a request."""
    (finding,) = verify([action(text)], [], Rules((held,)), NAMESPACE)

    assert finding.outcome is outcome
    assert finding.questions == ((action(text),) if outcome is UNKNOWN else ())


NAMED = tuple(f"node-{number}" for number in range(20_000))


@pytest.mark.parametrize("doubt", ["", "a webhook"])
def test_many_names_make_no_many_questions(doubt: str) -> None:
    """Where each had to be asked about by itself nobody is asked, and nothing passes for it."""
    held = PolicyRule(("*",), ("",), ("nodes",), NAMED)
    denied = [action(text) for text in ("get nodes", "list nodes", "* nodes", "get nodes/node-7")]
    findings = verify([], denied, Rules((held,), doubt), NAMESPACE)

    assert {finding.outcome for finding in findings} == {UNKNOWN}
    assert max(len(finding.questions) for finding in findings) <= MAX_QUESTIONS
    assert "could not be verified: it would take more than 100 questions" in str(findings[0])
    assert findings[3].questions
    assert "node-9 " not in str(held)


class Read(tuple[str, ...]):
    """Names that count how many of them are read."""

    __slots__ = ()
    read = 0

    def __iter__(self) -> Iterator[str]:
        """Yield them, and count."""
        for name in super().__iter__():
            Read.read += 1
            yield name


@pytest.mark.parametrize("doubt", ["", "a webhook"])
def test_no_question_is_made_that_is_not_asked(doubt: str) -> None:
    """Sixteen denials of 20,000 names read as many names as may be asked about, and a few, not all of them."""
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    denied = [action(f"{verb} {word}") for verb in verbs for word in ("nodes", "namespaces")]
    held = PolicyRule(("*",), ("",), ("nodes", "namespaces"), Read(NAMED))
    Read.read = 0
    findings = verify([], denied, Rules((held,), doubt), NAMESPACE)

    assert {finding.outcome for finding in findings} == {UNKNOWN}
    assert 0 < Read.read <= 16 * (MAX_QUESTIONS + 1)


def test_as_many_questions_as_are_asked() -> None:
    """And one name more."""
    asked, too_many = (
        verify([], [action("get nodes")], Rules((PolicyRule(("get",), ("",), ("nodes",), names),)), NAMESPACE)[0]
        for names in (NAMED[:MAX_QUESTIONS], NAMED[: MAX_QUESTIONS + 1])
    )

    assert (len(asked.questions), asked.why) == (MAX_QUESTIONS, "")
    assert (too_many.questions, too_many.outcome) == ((), UNKNOWN)


def test_a_url_in_doubt_is_asked_for_as_it_is() -> None:
    """It has no parts, and no other verb has its effect."""
    (finding,) = verify([], [action("get /metrics")], Rules((), doubt="a webhook"), NAMESPACE)

    assert finding.questions == (action("get /metrics"),)


@pytest.mark.parametrize("text", ["get *", "get /metrics*"])
def test_what_cannot_be_asked_stays_unknown(text: str) -> None:
    """No review asks about any resource, or any URL."""
    (finding,) = verify([], [action(text)], Rules((), doubt="a webhook"), NAMESPACE)

    assert finding == Finding("deny", action(text), UNKNOWN)
    assert settle(finding, {}).outcome is UNKNOWN


@pytest.mark.parametrize(
    ("expected", "answers", "outcome"),
    [
        ("allow", {"get pods": True, "list pods": True}, HELD),
        ("allow", {"get pods": True, "list pods": False}, FAILED),
        ("allow", {"get pods": True}, UNKNOWN),
        ("deny", {"get pods": False, "list pods": False}, HELD),
        ("deny", {"get pods": False, "list pods": True}, FAILED),
        ("deny", {"list pods": True}, FAILED),
        ("deny", {"get pods": False}, UNKNOWN),
        ("deny", {}, UNKNOWN),
    ],
)
def test_answers_settle_what_was_unknown(expected: str, answers: dict[str, bool], outcome: Outcome) -> None:
    """One right too many is enough to fail, and only all answers are enough to hold."""
    questions = (action("get pods"), action("list pods"))
    finding = Finding(expected, action("get pods"), UNKNOWN, None, questions)
    settled = settle(finding, {action(text): allowed for text, allowed in answers.items()})

    assert settled.outcome is outcome


def test_what_is_known_is_not_asked_again() -> None:
    """Answers change nothing about it."""
    finding = Finding("deny", action("get pods"), FAILED, None, (action("get pods"),))

    assert settle(finding, {action("get pods"): False}) is finding


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (Finding("allow", action("get pods"), HELD), "allow 'get pods' holds"),
        (Finding("deny", action("get pods"), UNKNOWN), "deny 'get pods' could not be verified"),
        (Finding("allow", action("get pods"), FAILED), "allow 'get pods' does not hold: no rule allows it"),
        (
            Finding("deny", action("get pods"), FAILED, rule("list", "pods")),
            f"deny 'get pods' does not hold: the rule {rule('list', 'pods')} allows it or what has its effect",
        ),
        (
            Finding("deny", action("get pods"), FAILED),
            "deny 'get pods' does not hold: the API server's authorizer allows it or what has its effect",
        ),
    ],
)
def test_a_finding_says_what_is_wrong(finding: Finding, text: str) -> None:
    """With the covering rule in RBAC's terms, for a condition."""
    assert str(finding) == text


@given(rules=st.lists(RULES, max_size=3).map(tuple), asked=ACTIONS, doubt=st.sampled_from(["", "a webhook"]))
def test_no_expectation_passes_falsely(rules: tuple[PolicyRule, ...], asked: Action, doubt: str) -> None:
    """What is denied and held, RBAC does not allow, for no name; what is allowed and held, it does, for every name."""
    allowed, denied = verify([asked], [asked], Rules(rules, doubt), NAMESPACE)
    names = [asked.name] if asked.name or asked.url else ["x", "y", "z", ""]
    named = [Action(asked.verb, asked.group, asked.resource, asked.subresource, it, asked.url) for it in names]

    if denied.outcome is HELD:
        assert not doubt
        assert not any(grants(Rules(rules), it) for it in named)
    if allowed.outcome is HELD:
        assert all(grants(Rules(rules), it) for it in named)
    assert {allowed.outcome, denied.outcome} != {HELD}
