"""Does an account have the access that its grant declares? Pure; nothing passes that was not shown.

An expectation is about the client's own namespace, and about the whole cluster for cluster-scoped resources. The
client's own Namespace is among those: a Role in it gives rights on it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain

from broker.model.access import Action, PolicyRule, Rules, allows
from broker.model.ways import COLLECTED, Way, collects, collects_any, gives_by_a_part, same_effect, ways

MAX_QUESTIONS = 100
"""How many questions one expectation may take. A rule may name thousands of objects, each asked about by itself."""

TOO_MANY = f"it would take more than {MAX_QUESTIONS} questions to the API server"

_EVERYBODYS = (
    (
        frozenset({"create"}),
        frozenset({"authorization.k8s.io"}),
        {"selfsubjectaccessreviews", "selfsubjectrulesreviews"},
    ),
    (frozenset({"create"}), frozenset({"authentication.k8s.io"}), {"selfsubjectreviews"}),
    (frozenset({"get", "list", "watch"}), frozenset({"certificates.k8s.io"}), {"clustertrustbundles"}),
)
"""Verbs, groups and resources that every account has, about itself or public: no access to anything."""


class Outcome(StrEnum):
    """What became of one expectation."""

    HELD = "held"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One expectation and what became of it.

    ``rule`` covers the action, where one was found. ``questions`` are what to ask the authorizer about
    (SubjectAccessReview) where the outcome is unknown; where there are none, nobody can tell. ``why`` says why not, or
    why no answer is enough for a pass.
    """

    expected: str
    action: Action
    outcome: Outcome
    rule: PolicyRule | None = None
    questions: tuple[Action, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        """Return what is wrong, as a condition says it."""
        if self.outcome is Outcome.HELD:
            return f"{self.expected} {str(self.action)!r} holds"
        if self.outcome is Outcome.UNKNOWN:
            return f"{self.expected} {str(self.action)!r} could not be verified{self.why and ': '}{self.why}"
        if self.expected == "allow":
            return f"allow {str(self.action)!r} does not hold: no rule allows it"
        by = f"the rule {self.rule}" if self.rule else "the API server's authorizer"
        return f"deny {str(self.action)!r} does not hold: {by} allows it or what has its effect"


def verify(
    expect_allow: Iterable[Action], expect_deny: Iterable[Action], rules: Rules, namespace: str
) -> tuple[Finding, ...]:
    """Return what the rules of an account in a namespace say to each expectation, those to be allowed first.

    An allowed action needs a rule that allows it for any object (or for the one it names). A denied one fails
    where a rule gives any part of it: by a wildcard, for one name only, or by a verb with the same effect.
    """
    allowed = (_verify_allow(action, rules, namespace) for action in expect_allow)
    denied = (_verify_deny(action, rules, namespace) for action in expect_deny)
    return (*allowed, *denied)


def settle(finding: Finding, answers: Mapping[Action, bool]) -> Finding:
    """Return an unknown finding with the authorizer's answers to its questions; without all of them it stays so."""
    if finding.outcome is not Outcome.UNKNOWN or not finding.questions:
        return finding
    if finding.expected == "deny":
        return _settle_deny(finding, answers)
    if any(question not in answers for question in finding.questions):
        return finding
    return _with(finding, Outcome.HELD if all(answers[it] for it in finding.questions) else Outcome.FAILED)


def _settle_deny(finding: Finding, answers: Mapping[Action, bool]) -> Finding:
    given = [question for question in finding.questions if answers.get(question)]
    unsure = [question for question in given if collects(question, finding.action)]
    if len(given) > len(unsure):
        return _with(finding, Outcome.FAILED)
    if any(question not in answers for question in finding.questions):
        return finding
    if finding.why or unsure:
        return replace(finding, questions=(), why=finding.why or COLLECTED)
    return _with(finding, Outcome.HELD)


def _with(finding: Finding, outcome: Outcome) -> Finding:
    return Finding(finding.expected, finding.action, outcome, finding.rule)


def _verify_allow(action: Action, rules: Rules, namespace: str) -> Finding:
    rule = next((it for it in rules.rules if _allows_all(it, action)), None)
    if rule and _decided_by_rules(action, namespace):
        return Finding("allow", action, Outcome.HELD, rule)
    if rule or rules.doubt or action.inside(namespace) not in {"", namespace}:
        # A RoleBinding shows the rule, too, and reaches no cluster-scoped resource.
        return Finding("allow", action, Outcome.UNKNOWN, rule, (action,))
    return Finding("allow", action, Outcome.FAILED)


def _decided_by_rules(action: Action, namespace: str) -> bool:
    """Tell whether all rules that an account is shown in a namespace count for the action, those of Roles, too."""
    return bool(action.url) or (action.namespaced and action.inside(namespace) == namespace)


def _allows_all(rule: PolicyRule, action: Action) -> bool:
    """Tell whether a rule allows the action for any object, where it names none: RBAC lets "" be a name."""
    return allows(rule, action) and (bool(action.name) or not rule.names)


def _verify_deny(action: Action, rules: Rules, namespace: str) -> Finding:
    if action.url or action.resource == "*":
        return _verify_broadly(action, rules)
    known = tuple(ways(action, namespace))
    given: list[tuple[PolicyRule, Way]] = []
    for rule in rules.rules:
        for way in known:
            if way.given_by(rule):
                if way.certain and not way.unless:
                    return Finding("deny", action, Outcome.FAILED, rule)
                given.append((rule, way))
    why = next((way.unless for _, way in given if way.certain), "") or _too_many_to_read(rules)
    hidden = [way for way in known if rules.doubt or way.elsewhere]
    if not given and not hidden:
        return Finding("deny", action, Outcome.HELD)
    shown = given[0][0] if given else None
    questions = _questions(hidden, [(rule, way) for rule, way in given if not way.certain])
    if len(questions) > MAX_QUESTIONS:
        return Finding("deny", action, Outcome.UNKNOWN, shown, why=TOO_MANY)
    return Finding("deny", action, Outcome.UNKNOWN, shown, questions, why)


def _too_many_to_read(rules: Rules) -> str:
    """Return why no answer shows that nothing is given: a rule that is not looked at may name any object."""
    return rules.too_many and f"there are {rules.too_many}, and any may name an object"


def _questions(hidden: Iterable[Way], given: Iterable[tuple[PolicyRule, Way]]) -> tuple[Action, ...]:
    """Return what together means that nothing is given, or one question too many.

    Rules that are all known leave open only what they give themselves; ``hidden`` is what they may not show.
    """
    asked = chain(
        (question for way in hidden for question in way.questions()),
        (question for rule, way in given for question in way.questions_about(rule)),
    )
    found: dict[Action, None] = {}
    for question in asked:
        found[question] = None
        if len(found) > MAX_QUESTIONS:
            break
    return tuple(found)


def _verify_broadly(action: Action, rules: Rules) -> Finding:
    """Verify what is denied about URLs, or any resource: no review asks about more than one of them."""
    giving = next((it for it in rules.rules if _gives_some(it, action)), None)
    if giving:
        return Finding("deny", action, Outcome.FAILED, giving)
    if rules.doubt:
        askable = action.url and not action.url.endswith("*")
        why = "" if action.url else _too_many_to_read(rules)
        return Finding("deny", action, Outcome.UNKNOWN, None, (action,) if askable else (), why)
    collecting = next((it for it in rules.rules if collects_any(it, action)), None)
    if collecting:
        return Finding("deny", action, Outcome.UNKNOWN, collecting, why=COLLECTED)
    return Finding("deny", action, Outcome.HELD)


def _gives_some(rule: PolicyRule, action: Action) -> bool:
    if action.url:
        return bool({action.verb, "*"}.intersection(rule.verbs) or (action.verb == "*" and rule.verbs)) and any(
            _urls_meet(it, action.url) for it in rule.urls
        )
    if action.name and rule.names and action.name not in rule.names:
        return False
    if not action.subresource and gives_by_a_part(rule, action.verb):
        return True
    right_verb = action.verb == "*" or {*same_effect(action), "*"}.intersection(rule.verbs)
    return bool(right_verb) and _gives_something(rule, action.subresource)


def _gives_something(rule: PolicyRule, subresource: str) -> bool:
    """Tell whether a rule gives anything that not every account has, to deny "everything"."""
    given = set(rule.resources)
    for verbs, groups, resources in _EVERYBODYS:
        if verbs.issuperset(rule.verbs) and groups.issuperset(rule.groups):
            given -= resources
    return any(it == "*" or not subresource or it.partition("/")[2] == subresource for it in given)


def _urls_meet(given: str, denied: str) -> bool:
    """Tell whether a rule's URL and the denied one, each maybe with a trailing ``*``, have a URL in common."""
    if given.endswith("*") and denied.endswith("*"):
        shorter, longer = sorted((given.rstrip("*"), denied.rstrip("*")), key=len)
        return longer.startswith(shorter)
    if denied.endswith("*"):
        return given.startswith(denied.rstrip("*"))
    return given == denied or (given.endswith("*") and denied.startswith(given.rstrip("*")))
