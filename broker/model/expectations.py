"""Does an account have the access that its grant declares? Pure; nothing passes that was not shown.

An expectation is about the client's own namespace, and about the whole cluster for cluster-scoped resources.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from broker.model.access import Action, PolicyRule, Rules, allows
from broker.model.api_resources import AUTHENTICATION_GROUP

_STANDARD_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
_SAME_EFFECT = {
    "get": ("get", "list", "watch", "patch", "delete", "deletecollection"),
    "list": ("list", "watch", "deletecollection"),
    "watch": ("watch", "list", "deletecollection"),
    "update": ("update", "patch"),
    "patch": ("patch", "update"),
    "delete": ("delete", "deletecollection"),
}
"""What has the effect of a verb. Whoever may list Secrets reads them, and so does whoever may patch or delete them: an
empty patch, and on a dry run ``deletecollection`` and a ``delete`` in the foreground, answer with the whole object."""

_WHOLE = {
    "status": "",
    "ephemeralcontainers": "pods",
    "resize": "pods",
    "approval": "certificatesigningrequests",
    "finalize": "namespaces",
}
"""Subresources whose answers are the whole object, and the one resource that has them; empty for many."""

_IMPERSONATION = (
    "impersonate",
    "impersonate:user-info",
    "impersonate:serviceaccount",
    "impersonate:arbitrary-node",
    "impersonate:associated-node",
)

_STREAMS = frozenset({"exec", "attach", "portforward"})
"""Subresources of pods that GET opens as well as POST, by WebSocket (older API servers ask for get alone)."""

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
    (SubjectAccessReview) where the outcome is unknown; where there are none, nobody can tell.
    """

    expected: str
    action: Action
    outcome: Outcome
    rule: PolicyRule | None = None
    questions: tuple[Action, ...] = ()

    def __str__(self) -> str:
        """Return what is wrong, as a condition says it."""
        if self.outcome is Outcome.HELD:
            return f"{self.expected} {str(self.action)!r} holds"
        if self.outcome is Outcome.UNKNOWN:
            return f"{self.expected} {str(self.action)!r} could not be verified"
        if self.expected == "allow":
            return f"allow {str(self.action)!r} does not hold: no rule allows it"
        by = f"the rule {self.rule}" if self.rule else "the API server's authorizer"
        return f"deny {str(self.action)!r} does not hold: {by} allows it or what has its effect"


def verify(expect_allow: Iterable[Action], expect_deny: Iterable[Action], rules: Rules) -> tuple[Finding, ...]:
    """Return what the rules say to each expectation, those to be allowed first.

    An allowed action needs a rule that allows it for any object (or for the one it names). A denied one fails
    where a rule gives any part of it: by a wildcard, for one name only, or by a verb with the same effect.
    """
    allowed = (_verify_allow(action, rules) for action in expect_allow)
    denied = (_verify_deny(action, rules) for action in expect_deny)
    return (*allowed, *denied)


def settle(finding: Finding, answers: Mapping[Action, bool]) -> Finding:
    """Return an unknown finding with the authorizer's answers to its questions; without all of them it stays so."""
    if finding.outcome is not Outcome.UNKNOWN or not finding.questions:
        return finding
    if finding.expected == "deny" and any(answers.get(question) for question in finding.questions):
        return _with(finding, Outcome.FAILED)
    if any(question not in answers for question in finding.questions):
        return finding
    if finding.expected == "deny":
        return _with(finding, Outcome.HELD)
    return _with(finding, Outcome.HELD if all(answers[it] for it in finding.questions) else Outcome.FAILED)


def _with(finding: Finding, outcome: Outcome) -> Finding:
    return Finding(finding.expected, finding.action, outcome, finding.rule)


def _verify_allow(action: Action, rules: Rules) -> Finding:
    rule = next((it for it in rules.rules if _allows_all(it, action)), None)
    if rule and action.namespaced:
        return Finding("allow", action, Outcome.HELD, rule)
    if rule or rules.doubt:
        # A RoleBinding shows the rule, too, and reaches no cluster-scoped resource.
        return Finding("allow", action, Outcome.UNKNOWN, rule, (action,))
    return Finding("allow", action, Outcome.FAILED)


def _allows_all(rule: PolicyRule, action: Action) -> bool:
    """Tell whether a rule allows the action for any object, where it names none: RBAC lets "" be a name."""
    return allows(rule, action) and (bool(action.name) or not rule.names)


def _verify_deny(action: Action, rules: Rules) -> Finding:
    giving = [rule for rule in rules.rules if _gives_part(rule, action)]
    if giving and action.namespaced:
        return Finding("deny", action, Outcome.FAILED, giving[0])
    if giving or rules.doubt:
        questions = tuple(dict.fromkeys(_questions(action, giving)))
        return Finding("deny", action, Outcome.UNKNOWN, giving[0] if giving else None, questions)
    return Finding("deny", action, Outcome.HELD)


def _gives_part(rule: PolicyRule, action: Action) -> bool:
    if action.url:
        return _right_verb(rule, action) and any(_urls_meet(it, action.url) for it in rule.urls)
    if action.name and rule.names and action.name not in rule.names:
        return False
    if action.resource == "*":
        return _right_verb(rule, action) and _gives_something(rule, action.subresource)
    return any(rule.covers(way.verb, way.group, way.combined) for way in _ways(action, [rule]))


def _right_verb(rule: PolicyRule, action: Action) -> bool:
    return bool({*_verbs(action, [rule]), "*"}.intersection(rule.verbs))


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


def _verbs(action: Action, giving: Iterable[PolicyRule]) -> tuple[str, ...]:
    """Return all verbs with the effect of the action's, those of the rules for ``*``."""
    if action.verb == "*":
        given = (verb for rule in giving for verb in rule.verbs)
        return tuple(dict.fromkeys(("*", *_STANDARD_VERBS, *given)))
    if action.url:
        return (action.verb,)
    if action.verb in _IMPERSONATION:
        return _IMPERSONATION
    if action.subresource in _STREAMS:
        return ("create", "get")
    return _SAME_EFFECT.get(action.verb, (action.verb,))


def _questions(action: Action, giving: list[PolicyRule]) -> Iterator[Action]:
    """Yield what together means that nothing of the action is given; nothing where that cannot be asked."""
    if action.resource == "*" or action.url.endswith("*"):
        return
    names = dict.fromkeys(name for rule in giving for name in rule.names)
    for way in _ways(action, giving):
        for name in [action.name] if action.name else ["", *names]:
            yield replace(way, name=name)


def _ways(action: Action, giving: Iterable[PolicyRule]) -> Iterator[Action]:
    """Yield all actions with the effect of one: by another verb, a part of the object, or all of it."""
    verbs = _verbs(action, giving)
    groups = ("", AUTHENTICATION_GROUP) if action.verb in _IMPERSONATION else (action.group,)
    yield from (replace(action, verb=verb, group=group) for group in groups for verb in verbs)
    if action.subresource == "scale" or (action.subresource, action.verb) == ("status", "get"):
        yield from (replace(action, verb=verb, subresource="") for verb in verbs)
    if action.resource and not action.subresource and action.verb in {"get", "*"}:
        parts = [part for part, only in _WHOLE.items() if only in {"", action.resource}]
        yield from (
            replace(action, verb=verb, subresource=part) for part in parts for verb in ("get", "patch", "update")
        )
