"""What makes an account *strong*: able to outlive the revocation of its token by making, or becoming, something. Pure.

What counts is a right to any of it, also to objects of certain names only. Delegated rights that a cluster adds
(custom workloads of operators, a ConfigMap that a cloud reads roles from) are not known here.
"""

from dataclasses import dataclass

from broker.model.access import Action, PolicyRule, Rules
from broker.model.api_resources import AUTHENTICATION_GROUP, RBAC_GROUP

_WRITE = ("create", "update", "patch")
_CHANGE = ("update", "patch")
_READ = ("get", "list", "watch", "delete", "deletecollection")
"""Deleting on a dry run answers with the whole object (``patch``, which does, too, is among the writes)."""

_OPEN = ("create", "get")
_CERTIFICATES = "certificates.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_IMPERSONATE = ("impersonate", "impersonate:user-info", "impersonate:serviceaccount", "impersonate:arbitrary-node")


@dataclass(frozen=True, slots=True)
class _Power:
    """Verbs on resources of one group, and why they make strong: ``why`` follows "which"."""

    why: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    namespaced: bool = True


_POWERS = (
    _Power("mints tokens by itself", "", ("serviceaccounts/token",), ("create",)),
    _Power("runs code as any account of the namespace, with that account's token", "", ("pods",), _WRITE),
    _Power("makes pods, which run as any account", "", ("replicationcontrollers",), _WRITE),
    _Power(
        "makes pods, which run as any account",
        "apps",
        ("deployments", "daemonsets", "statefulsets", "replicasets"),
        _WRITE,
    ),
    _Power("is what StatefulSets and DaemonSets make their pods of", "apps", ("controllerrevisions",), _WRITE),
    _Power("makes pods, which run as any account", "batch", ("jobs", "cronjobs"), _WRITE),
    _Power("runs commands in pods, next to the tokens of their accounts", "", ("pods/exec", "pods/attach"), _OPEN),
    _Power("adds a container to a pod, next to its account's token", "", ("pods/ephemeralcontainers",), _CHANGE),
    _Power(
        "reaches the kubelet, which runs commands in any pod of the node",
        "",
        ("nodes/proxy",),
        (*_OPEN, *_CHANGE, "delete"),
        namespaced=False,
    ),
    _Power("makes a Secret of the legacy token type, which never expires", "", ("secrets",), _WRITE),
    _Power("reads Secrets, where tokens that never expire and other credentials lie", "", ("secrets",), _READ),
    _Power("gives rights to another account or user", RBAC_GROUP, ("rolebindings",), _WRITE),
    _Power("gives rights to anybody", RBAC_GROUP, ("clusterrolebindings",), _WRITE, namespaced=False),
    _Power("changes what accounts may do", RBAC_GROUP, ("roles",), (*_WRITE, "bind", "escalate")),
    _Power(
        "changes what accounts may do",
        RBAC_GROUP,
        ("clusterroles",),
        (*_WRITE, "bind", "escalate"),
        namespaced=False,
    ),
    _Power("becomes another user", "", ("users", "groups"), _IMPERSONATE, namespaced=False),
    _Power("becomes another account", "", ("serviceaccounts",), _IMPERSONATE),
    _Power(
        "becomes another user",
        AUTHENTICATION_GROUP,
        ("users", "groups", "serviceaccounts", "nodes"),
        _IMPERSONATE,
        namespaced=False,
    ),
    _Power("registers clients for other accounts", "tokenbroker.dev", ("tokenclients",), _WRITE),
    _Power(
        "makes the broker forget grants whose tokens have to end", "tokenbroker.dev", ("tokenclients/status",), _CHANGE
    ),
    _Power(
        "writes the labels by which the operator bounds the broker, and Kubernetes pods",
        "",
        ("namespaces", "namespaces/status", "namespaces/finalize"),
        _CHANGE,
    ),
    _Power(
        "asks for a client certificate, which cannot be revoked",
        _CERTIFICATES,
        ("certificatesigningrequests",),
        ("create",),
        namespaced=False,
    ),
    _Power(
        "approves or signs client certificates, which cannot be revoked",
        _CERTIFICATES,
        ("certificatesigningrequests/approval", "certificatesigningrequests/status"),
        _CHANGE,
        namespaced=False,
    ),
    _Power(
        "approves or signs client certificates, which cannot be revoked",
        _CERTIFICATES,
        ("signers",),
        ("approve", "sign"),
        namespaced=False,
    ),
    _Power("asks for certificates of pods", _CERTIFICATES, ("podcertificaterequests",), ("create",)),
    _Power(
        "sees Secrets and changes pods of others on their way in",
        _ADMISSION,
        (
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ),
        _WRITE,
        namespaced=False,
    ),
    _Power(
        "lifts the limits on the broker and on those who register clients, or keeps the broker from ending tokens",
        _ADMISSION,
        ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
        (*_WRITE, "delete", "deletecollection"),
        namespaced=False,
    ),
    _Power(
        "has the API server refuse the broker's calls, those that end tokens among them",
        "flowcontrol.apiserver.k8s.io",
        ("flowschemas", "prioritylevelconfigurations"),
        _WRITE,
        namespaced=False,
    ),
    _Power(
        "puts a server of its own in the place of an API group",
        "apiregistration.k8s.io",
        ("apiservices",),
        _WRITE,
        namespaced=False,
    ),
    _Power(
        "changes the schema that TokenClients are held to, or keeps them from being served and so from being suspended",
        "apiextensions.k8s.io",
        ("customresourcedefinitions", "customresourcedefinitions/status"),
        _CHANGE,
        namespaced=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Strength:
    """One reason why an account is strong."""

    what: str
    why: str
    rule: PolicyRule | None = None

    def __str__(self) -> str:
        by = f" (by the rule {self.rule})" if self.rule else ""
        return f"it may {self.what}, which {self.why}{by}"


def strong_reasons(rules: Rules) -> tuple[Strength, ...]:
    """Return why an account with these rules is strong; empty where it is not.

    Where the rules have a doubt, more may be true: ask :func:`strong_questions`.
    """
    everything = next((it for it in rules.rules if it.covers("*", "*", "*") and not it.names), None)
    if everything:
        return (Strength("do everything", "is all of the cluster or namespace", everything),)
    if rules.too_many:
        return (Strength(f"do what {rules.too_many} say", "is more than is looked at"),)
    reasons = (
        Strength(_what(verbs, power.group, resource), power.why, rule)
        for power in _POWERS
        for resource in power.resources
        for rule in rules.rules
        if rule.reaches(power.group, resource) and (verbs := _given(rule, power.verbs, resource))
    )
    return tuple(dict.fromkeys(reasons))


def strong_questions(namespace: str) -> tuple[Action, ...]:
    """Return the actions, each of which makes strong, to ask the authorizer about where rules are incomplete.

    They are about an account of ``namespace``, and of Namespaces about that one: a Role gives rights on it.
    """
    return tuple(
        Action(verb, power.group, plural, subresource, name, namespaced=power.namespaced)
        for power in _POWERS
        for plural, _, subresource in (resource.partition("/") for resource in power.resources)
        for name in ([namespace] if (power.group, plural) == ("", "namespaces") else [""])
        for verb in power.verbs
    )


def strength_of(action: Action) -> Strength:
    """Return what an allowed one of :func:`strong_questions` means. Raises LookupError for any other action."""
    for power in _POWERS:
        if action.group == power.group and action.combined in power.resources and action.verb in power.verbs:
            return Strength(_what([action.verb], power.group, action.combined), power.why)
    raise LookupError(f"{action} makes nobody strong")


def _given(rule: PolicyRule, verbs: tuple[str, ...], resource: str) -> list[str]:
    """Return the verbs that a rule about the resource gives on some object.

    A new object has no name yet where access is decided, so ``create`` limited to names gives nothing; creating
    by ``patch`` is a right to ``patch``, too. Parts of objects have the name of their object.
    """
    given = [verb for verb in verbs if not {verb, "*"}.isdisjoint(rule.verbs)]
    nameless = "create" in given and "/" not in resource and rule.names and "" not in rule.names
    return [verb for verb in given if verb != "create"] if nameless else given


def _what(verbs: list[str], group: str, resource: str) -> str:
    plural, slash, subresource = resource.partition("/")
    return f"{','.join(verbs)} {plural}{f'.{group}' if group else ''}{slash}{subresource}"
