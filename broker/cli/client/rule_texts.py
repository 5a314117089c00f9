"""What ``--rule "get,list pods,deployments.apps"`` means, as rules of a Role (RBAC)."""

import re

from broker.cli.errors import usage
from broker.model.access import PolicyRule

_VERB = re.compile(r"\*|[a-z]+(?:[:-][a-z-]+)*", re.ASCII)
_RESOURCE = re.compile(
    r"(\*|[a-z][a-z0-9-]*)(?:\.(\*|[a-z0-9][a-z0-9.-]*[a-z0-9]))?(/[a-z][a-z0-9-]*)?",
    re.ASCII,
)
_URL = re.compile(r"/[!-)+-~]*\*?", re.ASCII)
_URL_VERBS = frozenset({"get", "head", "post", "put", "patch", "delete", "options", "*"})
_EXAMPLE = 'write it as "get,list pods,deployments.apps,pods/log"'


def parse_rule(text: str) -> list[PolicyRule]:
    """Return the rules for verbs and resources, one for each API group, as a Role needs them.

    ``*`` is any verb, any resource of the core group, with ``.GROUP`` of that group, or any group. Raises
    CommandError(usage) for a wrong syntax, and for URLs, which only a ClusterRole can allow. Whether the cluster
    knows the names is not looked at.
    """
    verbs, targets = _words(text)
    for target in targets:
        if target.startswith("/"):
            raise usage(f"--rule {text!r}: {target!r} is a URL, which no namespace has: use --cluster-wide-rule.")
    return _resource_rules(text, verbs, targets)


def parse_cluster_wide_rule(text: str) -> list[PolicyRule]:
    """Return the rules of a ClusterRole: as :func:`parse_rule`, and with URLs, such as ``get /metrics``."""
    verbs, targets = _words(text)
    urls = tuple(target for target in targets if target.startswith("/"))
    rules = _resource_rules(text, verbs, [target for target in targets if target not in urls])
    if urls and not _URL_VERBS.issuperset(verbs):
        raise usage(f"rule {text!r}: URLs have the verbs {', '.join(sorted(_URL_VERBS))} only.")
    for url in urls:
        if not _URL.fullmatch(url):
            raise usage(f"rule {text!r}: {url!r} is not a URL path such as /metrics, or /logs/* with all below it.")
    return [*rules, *([PolicyRule(verbs, urls=urls)] if urls else [])]


def _words(text: str) -> tuple[tuple[str, ...], list[str]]:
    words = text.split()
    if len(words) != 2:  # noqa: PLR2004 - verbs and resources
        raise usage(f"rule {text!r} is not verbs, a space, and resources: {_EXAMPLE}.")
    return tuple(_verb(verb, text) for verb in words[0].split(",")), words[1].split(",")


def _verb(verb: str, rule: str) -> str:
    if not _VERB.fullmatch(verb):
        raise usage(f"rule {rule!r}: {verb!r} is not a verb such as get, list or watch; {_EXAMPLE}.")
    return verb


def _resource_rules(text: str, verbs: tuple[str, ...], targets: list[str]) -> list[PolicyRule]:
    resources = [_resource(target, text) for target in targets]
    groups = dict.fromkeys(group for group, _ in resources)
    return [PolicyRule(verbs, (group,), tuple(name for of, name in resources if of == group)) for group in groups]


def _resource(resource: str, rule: str) -> tuple[str, str]:
    match = _RESOURCE.fullmatch(resource)
    if match is None:
        raise usage(f"rule {rule!r}: {resource!r} is not a resource such as pods or deployments.apps; {_EXAMPLE}.")
    name, group, subresource = match.groups(default="")
    return group, name + subresource
