"""What is wrong with a name of a resource, subresource or verb, and the nearest right one. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from broker.model.api_resources import ApiResource, Catalogue

_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
_ALWAYS = frozenset({"*", "use"})
"""``use`` is a verb of policies (OpenShift's, for one) that discovery never lists."""

_OPEN = "userextras"
"""Its subresources are keys that anybody may make up."""


def unknown_word(catalogue: Catalogue, word: str) -> str:
    """Return a sentence for a word that :meth:`Catalogue.resolve` does not know."""
    name, _, group = word.lower().partition(".")
    elsewhere = catalogue.resolve(name)
    if group and elsewhere:
        return f"there is no {name} in the API group {group!r}: write {elsewhere.full_name}.{_unsure(catalogue)}"
    return f"the cluster has no resource {word!r}{_nearest_resource(catalogue, name)}.{_unsure(catalogue)}"


def rule_problems(
    catalogue: Catalogue, groups: Sequence[str], resources: Iterable[str], verbs: Sequence[str]
) -> Iterator[str]:
    """Yield what makes a rule of a Role allow less than it says, each with the nearest right answer.

    Rules are taken literally by RBAC: plural names, exact groups, no versions. Verbs, groups and resources
    multiply, so what is wrong is a resource that is in none of the groups, one that has none of the verbs, and a
    verb that none of them has. Wildcards are let through where anything is behind them.
    """
    lacking: list[dict[str, str]] = []
    for resource in resources:
        problems = [_name_problem(catalogue, group, resource) for group in groups]
        if problems and all(problems):
            yield str(problems[0])
        known = [group for group, problem in zip(groups, problems, strict=True) if not problem]
        lacking += [_verb_problems(catalogue, group, resource, verbs) for group in known]
    useless = [it for it in lacking if set(verbs) <= set(it)]
    yield from dict.fromkeys(problem for it in useless for problem in list(it.values())[:1])
    if lacking and not useless:
        yield from (lacking[0][verb] for verb in verbs if all(verb in it for it in lacking))


def cluster_scoped(catalogue: Catalogue, groups: Iterable[str], resources: Sequence[str]) -> Iterator[str]:
    """Yield the resources of a rule that are in no namespace: a Role gives no right to them.

    Namespaces are the exception: in a Role they mean the Role's own.
    """
    for group in groups:
        for resource in resources:
            found = catalogue.find(group, resource.partition("/")[0])
            if found and not found.namespaced and found.full_name != "namespaces":
                yield found.full_name


def _name_problem(catalogue: Catalogue, group: str, resource: str) -> str | None:
    plural, _, subresource = resource.partition("/")
    if group not in {*catalogue.groups, "*", *catalogue.stale}:
        return _unknown_group(catalogue, plural, group)
    if plural == "*" or group in catalogue.stale:
        return None
    found = _in_group(catalogue, group, plural)
    if found is None:
        return _wrong_name(catalogue, plural, group)
    return _wrong_subresource(found, subresource) if subresource else None


def _verb_problems(catalogue: Catalogue, group: str, resource: str, verbs: Iterable[str]) -> dict[str, str]:
    plural, _, subresource = resource.partition("/")
    found = _in_group(catalogue, group, plural)
    return {verb: it for verb in verbs if found and (it := verb_problem(found, verb, subresource))}


def verb_problem(resource: ApiResource, verb: str, subresource: str) -> str | None:
    """Return why nobody can ever do this to a resource, or None."""
    wrong = _wrong_subresource(resource, subresource) if subresource else None
    if wrong:
        return wrong
    part = resource.subresource(subresource) if subresource else None
    known = part.verbs if part else (*resource.verbs, *resource.special_verbs)
    if verb in known or verb in _ALWAYS or verb.startswith("impersonate-on:"):
        return None
    if verb not in _VERBS and _may_have_own_verbs(resource.group):
        return None
    what = f"{resource.full_name}/{subresource}" if subresource else resource.full_name
    close = get_close_matches(verb, known, n=1)
    hint = f"; did you mean {close[0]}?" if close and verb not in _VERBS else ""
    return f"{verb!r} cannot be done to {what}, only: {', '.join(known) or 'nothing'}{hint or '.'}"


def _may_have_own_verbs(group: str) -> bool:
    return "." in group and not group.endswith(".k8s.io")


def _in_group(catalogue: Catalogue, group: str, plural: str) -> ApiResource | None:
    groups = catalogue.groups if group == "*" else (group,)
    return next((found for it in groups if (found := catalogue.find(it, plural))), None)


def _unknown_group(catalogue: Catalogue, plural: str, group: str) -> str:
    version, _, rest = group.partition(".")
    versioned = catalogue.find(rest, plural)
    if versioned and version.startswith("v"):
        return f"rules name no version: write {versioned.full_name}."
    elsewhere = catalogue.resolve(plural)
    if elsewhere:
        return f"the cluster has no API group {group!r}: write {elsewhere.full_name}.{_unsure(catalogue)}"
    close = get_close_matches(group, [it for it in catalogue.groups if it], n=1)
    hint = f"; did you mean {close[0]}?" if close else "."
    return f"the cluster has no API group {group!r}{hint}{_unsure(catalogue)}"


def _wrong_name(catalogue: Catalogue, plural: str, group: str) -> str:
    word = f"{plural}.{group}" if group else plural
    meant = catalogue.resolve(word) or catalogue.resolve(plural)
    if meant and meant.plural == plural:
        return f"{plural} is in {_named(meant.group)}, not in {_named(group)}: write {meant.full_name}."
    if meant:
        return f"rules name resources by their plural: write {meant.full_name} for {word}."
    hint = _nearest_resource(catalogue, plural, group)
    return f"there is no resource {plural!r} in {_named(group)}{hint}.{_unsure(catalogue)}"


def _named(group: str) -> str:
    return f"the API group {group!r}" if group else "the core group"


def _nearest_resource(catalogue: Catalogue, name: str, group: str | None = None) -> str:
    """Return the nearest names, of the group before others."""
    by_name: dict[str, str] = {}
    for it in sorted(catalogue.resources, key=lambda it: it.group != group):
        for word in (it.plural, it.singular, *it.short_names):
            by_name.setdefault(word, it.full_name)
    close = list(dict.fromkeys(by_name[word] for word in get_close_matches(name, by_name, n=3)))
    return f"; the nearest: {', '.join(close)}" if close else ""


def _wrong_subresource(resource: ApiResource, subresource: str) -> str | None:
    known = [it.name for it in resource.subresources]
    if subresource in known or resource.plural == _OPEN:
        return None
    close = get_close_matches(subresource, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(known) or 'none'}."
    return f"{resource.full_name} has no subresource {subresource!r}; {hint}"


def _unsure(catalogue: Catalogue) -> str:
    if not catalogue.stale:
        return ""
    return f" The servers of {', '.join(sorted(catalogue.stale))} do not answer, so what they have is not known."
