"""By which rights some of an action is given: other verbs with its effect, a part of the object, or all of it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

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

_WRITE_LABELS = ("status", "finalize")
"""Subresources of namespaces through which labels are written, too."""

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
    rules of another namespace give it, which are not shown.
    """

    action: Action
    verbs: tuple[str, ...]
    others: bool = False
    not_these: frozenset[str] = frozenset()
    certain: bool = True
    elsewhere: bool = False

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
        all_verbs = dict.fromkeys((*self.verbs, *rule.verbs))
        for verb in all_verbs:
            meant = verb in self.verbs or (self.others and verb not in self.not_these)
            if meant and ("*" in rule.verbs or verb in rule.verbs):
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


def _everywhere(action: Action) -> Iterator[Way]:
    verbs, others = same_effect(action), action.verb == "*"
    groups = ("", AUTHENTICATION_GROUP) if action.verb in _IMPERSONATION else (action.group,)
    yield from (Way(replace(action, group=group), verbs, others) for group in groups)
    if action.subresource == "scale" or (action.subresource, action.verb) == ("status", "get"):
        yield Way(replace(action, subresource=""), verbs, others)
    if not action.subresource and action.verb in {"get", "*"}:
        parts = [part for part, only in _WHOLE.items() if only in {"", action.resource}]
        yield from (Way(replace(action, subresource=part), ("get", "patch", "update")) for part in parts)
    if action.on_namespaces and not action.subresource and action.verb in {"update", "patch"}:
        yield from (Way(replace(action, subresource=part), ("patch", "update")) for part in _WRITE_LABELS)
