"""What an account may do: actions as ``kubectl auth can-i`` writes them, rules as RBAC evaluates them. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from broker.model.api_resources import Catalogue
from broker.model.api_words import unknown_word, verb_problem

MAX_ACTION_CHARACTERS = 256

MAX_RULES = 2000
"""How many rules of an account are looked at; those that differ in the names of objects alone count as one."""

_VERB = re.compile(r"\*|[a-z]+(?:[:-][a-z-]+)*", re.ASCII)
_WORD = re.compile(r"\*|[A-Za-z][A-Za-z0-9-]*(?:\.[A-Za-z0-9.-]+)?", re.ASCII)
_SUBRESOURCE = re.compile(r"[a-z][a-z0-9-]*(?:/[a-z0-9-]+)*", re.ASCII)
_NAME = re.compile(r"[!-~]+", re.ASCII)
_FLAG = "--subresource"
NAMELESS = frozenset({"create", "list", "deletecollection"})
"""Verbs of requests whose URL names no object (``watch`` may: ``/api/v1/watch/namespaces/NAME``)."""

_SHOWN_VALUES = 8
"""How many values of a rule are written out: a Role may name thousands of objects."""

_EXAMPLE = 'write it as "list pods", "get deployments.apps/web", "get pods --subresource=log" or "get /metrics"'


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: a verb on a resource, or on a URL of the API server that is no resource.

    An empty ``name`` means any object. Cluster-scoped resources (``namespaced`` is false) are asked about without
    a namespace: a RoleBinding does not reach them. A Namespace is both: a request that names one is decided in that
    namespace, so that a Role there reaches it (kubernetes: apiserver/pkg/endpoints/request/requestinfo.go).
    ``namespaced`` is true where the action is about one by name.
    """

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    url: str = ""
    namespaced: bool = True

    @property
    def combined(self) -> str:
        """The resource as rules write it: ``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def on_namespaces(self) -> bool:
        """Whether it is about Namespaces."""
        return (self.group, self.resource) == ("", "namespaces")

    def inside(self, namespace: str) -> str:
        """Return the namespace in which it is decided on for somebody of ``namespace``; empty for the whole cluster."""
        if not self.namespaced or self.url:
            return ""
        if not self.on_namespaces:
            return namespace
        return "" if self.verb in NAMELESS and not self.subresource else self.name

    def attributes(self, namespace: str) -> dict[str, dict[str, str]]:
        """Return the part of a SubjectAccessReview's spec that asks about it."""
        if self.url:
            return {"nonResourceAttributes": {"verb": self.verb, "path": self.url}}
        asked = {
            "namespace": self.inside(namespace),
            "verb": self.verb,
            "group": self.group,
            "resource": self.resource,
            "subresource": self.subresource,
            "name": self.name,
        }
        return {"resourceAttributes": asked}

    def __str__(self) -> str:
        if self.url:
            return f"{self.verb} {self.url}"
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        name = f"/{self.name}" if self.name else ""
        subresource = f" {_FLAG}={self.subresource}" if self.subresource else ""
        return f"{self.verb} {resource}{name}{subresource}"


@dataclass(frozen=True, slots=True)
class WrittenAction:
    """An action whose resource is still a word, as somebody wrote it."""

    text: str
    verb: str
    word: str = ""
    name: str = ""
    subresource: str = ""
    url: str = ""

    def resolved(self, catalogue: Catalogue) -> Action:
        """Return the action, for a cluster. Raises ValueError with the nearest right answer."""
        if self.url:
            return Action(self.verb, url=self.url)
        if self.word == "*":
            return Action(self.verb, resource="*", subresource=self.subresource, name=self.name)
        found = catalogue.resolve(self.word)
        if found is None:
            raise ValueError(f"{self.text!r}: {unknown_word(catalogue, self.word)}")
        problem = verb_problem(found, self.verb, self.subresource)
        if problem:
            raise ValueError(f"{self.text!r}: {problem}")
        if not self.subresource and found.subresource(self.name):
            raise ValueError(f"{self.text!r} is about {found.singular} {self.name!r}: write {self._of(self.name)!r}.")
        action = Action(self.verb, found.group, found.plural, self.subresource, self.name, namespaced=found.namespaced)
        return replace(action, namespaced=True) if action.on_namespaces and action.name else action

    def _of(self, subresource: str) -> str:
        return f"{self.verb} {self.word} {_FLAG}={subresource}"


def parse_action(text: str) -> WrittenAction:
    """Return what a string of ``kubectl auth can-i`` says (kubectl: pkg/cmd/auth/cani.go).

    What follows a slash is the name of an object, so ``pods/log`` is a pod called log; a subresource is written
    ``--subresource=log``. A word that starts with a slash is a URL. Raises ValueError with a sentence.
    """
    if len(text) > MAX_ACTION_CHARACTERS:
        raise ValueError(f"an action has at most {MAX_ACTION_CHARACTERS} characters.")
    words, subresource = _without_flag(text)
    if len(words) != 2:  # noqa: PLR2004 - a verb and what it is done to
        raise ValueError(f"{text!r} is not a verb and a resource or URL: {_EXAMPLE}.")
    verb, target = words
    if not _VERB.fullmatch(verb):
        raise ValueError(f"{text!r}: {verb!r} is not a verb such as get, list or watch.")
    if target.startswith("/"):
        if subresource:
            raise ValueError(f"{text!r}: a URL has no subresource.")
        return WrittenAction(text, verb, url=target)
    word, slash, name = target.partition("/")
    if not _WORD.fullmatch(word) or (slash and not _NAME.fullmatch(name)):
        raise ValueError(f"{text!r}: {target!r} is not a resource, nor RESOURCE/NAME: {_EXAMPLE}.")
    return WrittenAction(text, verb, word, name, subresource)


def _without_flag(text: str) -> tuple[list[str], str]:
    words, subresource = text.split(), ""
    for position, word in enumerate(words):
        if word == _FLAG or word.startswith(f"{_FLAG}="):
            value = words[position + 1 : position + 2] if word == _FLAG else [word.removeprefix(f"{_FLAG}=")]
            subresource = value[0] if value else ""
            if not _SUBRESOURCE.fullmatch(subresource):
                raise ValueError(f"{text!r}: {subresource!r} is not a subresource such as log or exec.")
            del words[position : position + 1 + (word == _FLAG)]
            break
    if any(word.startswith("-") for word in words):
        raise ValueError(f"{text!r}: no option but {_FLAG} may be given; the namespace is always the client's own.")
    return words, subresource


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of a Role (rbac/v1 PolicyRule). No ``names`` means any."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    def covers(self, verb: str, group: str, resource: str) -> bool:
        """Tell whether it allows a verb on ``resource`` or ``resource/subresource``, be it for some names only.

        As RBAC does it (kubernetes: pkg/apis/rbac/v1/evaluation_helpers.go).
        """
        return bool({verb, "*"}.intersection(self.verbs)) and self.reaches(group, resource)

    def reaches(self, group: str, resource: str) -> bool:
        """Tell whether it is about a resource: ``*/scale`` is the subresource of any, and ``pods/*`` is nothing."""
        subresource = resource.partition("/")[2]
        known = {"*", resource, f"*/{subresource}"} if subresource else {"*", resource}
        return not known.isdisjoint(self.resources) and not {group, "*"}.isdisjoint(self.groups)

    def covers_url(self, verb: str, url: str) -> bool:
        """Tell whether it allows a verb on a URL; a trailing ``*`` of the rule is a prefix."""
        return bool({verb, "*"}.intersection(self.verbs)) and any(
            it in {"*", url} or (it.endswith("*") and url.startswith(it.rstrip("*"))) for it in self.urls
        )

    def __str__(self) -> str:
        """Return the rule as Kubernetes' own messages write it, but for values beyond the first few."""
        parts = {
            "APIGroups": self.groups,
            "Resources": self.resources,
            "NonResourceURLs": self.urls,
            "ResourceNames": self.names,
            "Verbs": self.verbs,
        }
        return "{" + ", ".join(f"{key}:{_quoted(values)}" for key, values in parts.items() if values) + "}"


def _quoted(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else ""
    return "[" + " ".join(f'"{value}"' for value in values[:_SHOWN_VALUES]) + more + "]"


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of an account in one namespace, those that hold in the whole cluster among them.

    ``doubt`` says why there may be more than these; empty where they are all. ``too_many``: there are so many that it
    is not known what the others give.
    """

    rules: tuple[PolicyRule, ...]
    doubt: str = ""
    too_many: str = ""


def read_review(status: Mapping[str, Any]) -> Rules:
    """Return the rules of a SelfSubjectRulesReview's status; those that differ in their names alone are one.

    An evaluation error is a doubt, too: the API server goes on without the rules that it could not find.
    """
    doubt = str(status.get("evaluationError") or "")
    if status.get("incomplete") and not doubt:
        doubt = "an authorizer of the cluster cannot list its rules"
    listed = (*(status.get("resourceRules") or ()), *(status.get("nonResourceRules") or ()))
    rules = _merged(map(_rule, listed))
    if len(rules) > MAX_RULES:
        return _more_than_looked_at(rules[:MAX_RULES], f"more than {MAX_RULES} rules")
    return Rules(rules, doubt)


def unread_review(largest: int) -> Rules:
    """Return what is known where the answer of a SelfSubjectRulesReview has more bytes than are read.

    A rule counts in it once for each binding of its Role, so whoever may bind decides how large it is.
    """
    return _more_than_looked_at((), f"rules of more than {largest // 1024**2} MiB")


def _more_than_looked_at(rules: tuple[PolicyRule, ...], amount: str) -> Rules:
    return Rules(rules, f"there are {amount}", too_many=amount)


def _merged(rules: Iterable[PolicyRule]) -> tuple[PolicyRule, ...]:
    """Return rules that differ in their names alone as one; no more of them than one too many."""
    alike: dict[tuple[object, ...], tuple[PolicyRule, dict[str, None]]] = {}
    for rule in rules:
        shape = (rule.verbs, rule.groups, rule.resources, rule.urls, bool(rule.names))
        alike.setdefault(shape, (rule, {}))[1].update(dict.fromkeys(rule.names))
        if len(alike) > MAX_RULES:
            break
    return tuple(replace(rule, names=tuple(names)) for rule, names in alike.values())


def read_rules(documents: Iterable[Mapping[str, Any]]) -> tuple[PolicyRule, ...]:
    """Return the rules of a Role or ClusterRole, or of a review."""
    return tuple(map(_rule, documents))


def _rule(document: Mapping[str, Any]) -> PolicyRule:
    return PolicyRule(
        verbs=_strings(document, "verbs"),
        groups=_strings(document, "apiGroups"),
        resources=_strings(document, "resources"),
        names=_strings(document, "resourceNames"),
        urls=_strings(document, "nonResourceURLs"),
    )


def _strings(rule: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = rule.get(key)
    return tuple(str(value) for value in values) if isinstance(values, list | tuple) else ()


def grants(rules: Rules, action: Action) -> PolicyRule | None:
    """Return the first rule that allows the action, exactly as RBAC decides it, or None."""
    return next((rule for rule in rules.rules if allows(rule, action)), None)


def allows(rule: PolicyRule, action: Action) -> bool:
    """Tell whether RBAC lets this rule allow the action."""
    if action.url:
        return rule.covers_url(action.verb, action.url)
    right_name = not rule.names or action.name in rule.names
    return right_name and rule.covers(action.verb, action.group, action.combined)
