"""By which rights some of an action is given: other verbs with its effect, a part of the object, or all of it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from broker.model.access import NAMELESS, Action, PolicyRule
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

_TWINS = {
    ("", "events"): ("events.k8s.io", "events"),
    ("events.k8s.io", "events"): ("", "events"),
    ("", "bindings"): ("", "pods/binding"),
    ("", "pods/binding"): ("", "bindings"),
}
"""The same objects under two names (kubernetes: pkg/registry/core/rest, pkg/registry/events/rest)."""

_CHANGE = ("patch", "update")
_DELETE = ("delete", "deletecollection")
_EVICTION = "eviction"
"""The subresource of pods that deletes them, as far as their disruption budgets let it."""

COLLECTED = (
    "who may update or patch an object can have the garbage collector delete it, by an owner that is not there, unless "
    "the cluster has the admission plugin OwnerReferencesPermissionEnforcement"
)
"""https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#ownerreferencespermissionenforcement"""

_METADATA_TOO = {"status": "", "approval": "certificatesigningrequests", "finalize": "namespaces"}
"""Subresources through which an object's metadata may be written, too, and the one resource that has them."""

_IMPERSONATION = (
    "impersonate",
    "impersonate:user-info",
    "impersonate:serviceaccount",
    "impersonate:arbitrary-node",
    "impersonate:associated-node",
)

_STREAMS = frozenset({"exec", "attach", "portforward"})
"""Subresources of pods that GET opens as well as POST, by WebSocket (older API servers ask for get alone)."""


@dataclass(frozen=True, slots=True)
class Way:
    """Verbs on a resource, each of which gives some of an action. The verb of ``action`` itself says nothing.

    ``others``: every other verb gives some of it, too, but for those that are ``not_these``. ``certain``: a rule
    that is shown gives it; else the rule may be a Role's, which reaches nothing outside its namespace. ``elsewhere``:
    rules of another namespace give it, which are not shown. ``unless``: why nobody can tell whether it gives any.
    """

    action: Action
    verbs: tuple[str, ...]
    others: bool = False
    not_these: frozenset[str] = frozenset()
    certain: bool = True
    elsewhere: bool = False
    unless: str = ""

    def given_by(self, rule: PolicyRule) -> bool:
        """Tell whether a rule gives it, be it for some names only."""
        by_another = self.others and not self.not_these.issuperset(rule.verbs)
        if not by_another and {"*", *self.verbs}.isdisjoint(rule.verbs):
            return False
        right_name = not self.action.name or not rule.names or self.action.name in rule.names
        return right_name and rule.reaches(self.action.group, self.action.combined)

    def questions(self) -> Iterator[Action]:
        """Yield what together means that nothing of it is given, as far as it can be asked without names."""
        yield from (replace(self.action, verb=verb) for verb in self.verbs)

    def questions_about(self, rule: PolicyRule) -> Iterator[Action]:
        """Yield what a rule that is shown may give of it."""
        every = "*" in rule.verbs
        known = (verb for verb in self.verbs if every or verb in rule.verbs)
        others = (verb for verb in rule.verbs if verb not in self.verbs and verb not in self.not_these)
        for verb in chain(known, others if self.others else ()):
            for name in [self.action.name] if self.action.name else rule.names or [""]:
                yield replace(self.action, verb=verb, name=name)


def ways(action: Action, namespace: str) -> Iterator[Way]:
    """Yield all ways to an action for an account of a namespace; that Namespace itself is one of its own."""
    for way in _everywhere(action):
        if not way.action.on_namespaces:
            yield replace(way, certain=way.action.namespaced)
            continue
        yield replace(way, action=replace(way.action, namespaced=False), certain=False)
        itself = replace(way.action, name=action.name or namespace, namespaced=True)
        verbs = tuple(verb for verb in way.verbs if replace(itself, verb=verb).inside(namespace))
        if verbs:
            not_these = frozenset() if itself.subresource else NAMELESS
            own = itself.name == namespace
            yield replace(way, action=itself, verbs=verbs, not_these=not_these, certain=own, elsewhere=not own)


def same_effect(action: Action) -> tuple[str, ...]:
    """Return all verbs with the effect of the action's."""
    if action.verb == "*":
        return ("*", *_STANDARD_VERBS)
    if action.verb in _IMPERSONATION:
        return _IMPERSONATION
    if action.subresource in _STREAMS:
        return ("create", "get")
    return _SAME_EFFECT.get(action.verb, (action.verb,))


def gives_by_a_part(rule: PolicyRule, verb: str) -> bool:
    """Tell whether a rule gives some of a verb on whatever resource it is, through a part of that."""
    if verb == "get" and "update" in rule.verbs:
        return "*" in rule.resources or not _WHOLE.keys().isdisjoint(_parts_of(rule))
    return verb == "delete" and rule.covers("create", "", f"pods/{_EVICTION}")


def collects_any(rule: PolicyRule, action: Action) -> bool:
    """Tell whether a rule may do what the action, about whatever resource it is, does, by :data:`COLLECTED`."""
    if action.verb != "delete" or action.subresource or set(_CHANGE).isdisjoint(rule.verbs):
        return False
    right_name = not action.name or not rule.names or action.name in rule.names
    return right_name and any(not part or part in _METADATA_TOO for part in _parts_of(rule))


def collects(question: Action, action: Action) -> bool:
    """Tell whether a question of a way to the action is about :data:`COLLECTED`: a yes to it does not settle it."""
    return action.verb == "delete" and question.verb in _CHANGE


def _parts_of(rule: PolicyRule) -> Iterator[str]:
    yield from (resource.partition("/")[2] for resource in rule.resources)


def _parts(table: Mapping[str, str], resource: str) -> list[str]:
    return [part for part, only in table.items() if only in {"", resource}]


def _everywhere(action: Action) -> Iterator[Way]:
    verbs, others = same_effect(action), action.verb == "*"
    groups = ("", AUTHENTICATION_GROUP) if action.verb in _IMPERSONATION else (action.group,)
    yield from (Way(replace(action, group=group), verbs, others) for group in groups)
    twin = _TWINS.get((action.group, action.combined))
    if twin:
        plural, _, part = twin[1].partition("/")
        yield Way(replace(action, group=twin[0], resource=plural, subresource=part), verbs, others)
    yield from _deleting(action)
    if action.subresource == "scale" or (action.subresource, action.verb) == ("status", "get"):
        yield Way(replace(action, subresource=""), verbs, others)
    if not action.subresource and action.verb in {"get", "*"}:
        parts = _parts(_WHOLE, action.resource)
        yield from (Way(replace(action, subresource=part), ("get", *_CHANGE)) for part in parts)
    if action.on_namespaces and not action.subresource and action.verb in {"update", "patch"}:
        yield from (Way(replace(action, subresource=part), _CHANGE) for part in _parts(_METADATA_TOO, "namespaces"))


def _deleting(action: Action) -> Iterator[Way]:
    """Yield the ways to delete an object that are no ``delete`` of it, and those to evict a pod that are one."""
    of_pods = (action.group, action.resource) == ("", "pods")
    if of_pods and action.subresource == _EVICTION and action.verb in {"create", "*"}:
        yield Way(replace(action, subresource=""), _DELETE)
    if of_pods and not action.subresource and action.verb in {"delete", "*"}:
        yield Way(replace(action, subresource=_EVICTION), ("create",))
    if not action.subresource and action.verb == "delete":
        parts = ["", *_parts(_METADATA_TOO, action.resource)]
        yield from (Way(replace(action, subresource=part), _CHANGE, unless=COLLECTED) for part in parts)
