"""What ``--rule "get,list pods,deployments.apps"`` means, as rules of a Role (RBAC)."""

import re
from dataclasses import dataclass

from broker.cli.errors import usage

_VERB = re.compile(r"[a-z]+", re.ASCII)
_RESOURCE = re.compile(r"([a-z][a-z0-9-]*)(?:\.([a-z0-9][a-z0-9.-]*[a-z0-9]))?(/[a-z][a-z0-9-]*)?", re.ASCII)
_EXAMPLE = 'write it as "get,list pods,deployments.apps,pods/log"'


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be done with resources of one API group; the core group's name is empty."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]


def parse_rule(text: str) -> list[Rule]:
    """Return the rules for verbs and resources, one for each API group, as a Role needs them.

    Raises CommandError(usage) for a wrong syntax, wildcards, and URLs that only a ClusterRole can allow.
    Whether the cluster knows the names is not looked at.
    """
    words = text.split()
    if len(words) != 2:  # noqa: PLR2004 - verbs and resources
        raise usage(f"--rule {text!r} is not verbs, a space, and resources: {_EXAMPLE}.")
    verbs = tuple(_verb(verb, text) for verb in words[0].split(","))
    resources = [_resource(resource, text) for resource in words[1].split(",")]
    groups = dict.fromkeys(group for group, _ in resources)
    return [Rule(group, tuple(name for of, name in resources if of == group), verbs) for group in groups]


def _verb(verb: str, rule: str) -> str:
    if verb == "*":
        raise usage(f"--rule {rule!r}: '*' would also allow what nobody thought of; list the verbs.")
    if not _VERB.fullmatch(verb):
        raise usage(f"--rule {rule!r}: {verb!r} is not a verb such as get, list or watch; {_EXAMPLE}.")
    return verb


def _resource(resource: str, rule: str) -> tuple[str, str]:
    if resource.startswith("/"):
        raise usage(
            f"--rule {rule!r}: {resource!r} is a URL, which a Role of a namespace cannot allow: have a "
            "cluster admin make a ClusterRole with nonResourceURLs and a ClusterRoleBinding to the account."
        )
    if "*" in resource:
        raise usage(f"--rule {rule!r}: '*' would also allow what nobody thought of; list the resources.")
    match = _RESOURCE.fullmatch(resource)
    if match is None:
        raise usage(f"--rule {rule!r}: {resource!r} is not a resource such as pods or deployments.apps; {_EXAMPLE}.")
    name, group, subresource = match.groups(default="")
    return group, name + subresource
