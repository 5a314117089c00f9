"""What a registration would give its account, judged before anything is made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import typer

from broker.cli.cluster import Cluster
from broker.cli.errors import CommandError, RefusedError, usage
from broker.cli.manifests import NewClient
from broker.cli.output import printable
from broker.cli.resources import Kind
from broker.model.access import Action, PolicyRule, Rules, parse_action, read_rules
from broker.model.api_resources import Catalogue
from broker.model.api_words import cluster_scoped, rule_problems
from broker.model.expectations import Outcome, verify
from broker.model.strength import Strength, strong_reasons

Roles = Mapping[str, tuple[PolicyRule, ...] | None]
"""The rules of ClusterRoles by name; None for one that could not be read."""

_RISKS = {
    "escalate": "lets it give itself any right",
    "bind": "lets it give others rights that it does not hold",
    "impersonate": "lets it act as somebody else",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What has to be said about the account: ``notes`` to whoever registers it, and why it is strong, if it is."""

    notes: tuple[str, ...]
    strong: tuple[Strength, ...]


async def read_roles(cluster: Cluster, new: NewClient) -> Roles:
    """Return the ClusterRoles that are named. Raises CommandError for one that does not exist.

    Kubernetes lets a cluster admin bind a missing one all the same.
    """
    return {name: await _read_role(cluster, name) for name in (*new.rights.cluster_roles, *new.rights.wide_roles)}


async def _read_role(cluster: Cluster, name: str) -> tuple[PolicyRule, ...] | None:
    try:
        found = await cluster.get(Kind.CLUSTER_ROLE, None, name)
    except RefusedError:
        return None  # the user may not read ClusterRoles: the API server judges the binding
    if found is None:
        raise CommandError(f"there is no ClusterRole {name!r}: see `kubectl get clusterroles`.")
    return read_rules(found.get("rules") or ())


def check_words(new: NewClient, catalogue: Catalogue) -> None:
    """Raise CommandError for rules and expectations that the cluster cannot mean, with the nearest right answers."""
    problems = [*_rule_problems(new, catalogue), *_expectation_problems(new, catalogue)]
    if problems:
        raise usage(" ".join(problems))


def _rule_problems(new: NewClient, catalogue: Catalogue) -> Iterator[str]:
    for rule in (*new.rights.rules, *new.rights.wide_rules):
        for problem in rule_problems(catalogue, rule.groups, rule.resources, rule.verbs):
            yield f"rule {written(rule)!r}: {problem}"
    for rule in new.rights.rules:
        for name in cluster_scoped(catalogue, rule.groups, rule.resources):
            yield (
                f"rule {written(rule)!r}: {name} are in no namespace, so a Role gives no right to them: "
                "use --cluster-wide-rule."
            )


def _expectation_problems(new: NewClient, catalogue: Catalogue) -> Iterator[str]:
    for text in (*new.grant.expect.allow, *new.grant.expect.deny):
        try:
            parse_action(text).resolved(catalogue)
        except ValueError as error:
            yield f"expectation {error}"


def written(rule: PolicyRule) -> str:
    """Return a rule as ``--rule`` takes it."""
    group = rule.groups[0] if rule.groups else ""
    names = [
        ".".join(filter(None, (it.partition("/")[0], group))) + "".join(it.partition("/")[1:]) for it in rule.resources
    ]
    return f"{','.join(rule.verbs)} {','.join((*names, *rule.urls))}"


def judge(new: NewClient, roles: Roles) -> Judgement:
    """Return what is to be said about the rights that the client's account gets."""
    own = (*new.rights.rules, *new.rights.wide_rules)
    given = (*own, *(rule for rules in roles.values() for rule in rules or ()))
    return Judgement((*_risks(own), *_unread(roles)), strong_reasons(Rules(given)))


def check_denied(new: NewClient, roles: Roles, catalogue: Catalogue) -> None:
    """Raise CommandError where the rights to be given are among those that are to be denied."""
    given = (*new.rights.rules, *new.rights.wide_rules, *(rule for rules in roles.values() for rule in rules or ()))
    for finding in verify([], _actions(new.grant.expect.deny, catalogue), Rules(given), new.id.namespace):
        if finding.outcome is Outcome.FAILED:
            raise CommandError(f"{finding}: give the account less, or do not expect it.")


def _actions(texts: Sequence[str], catalogue: Catalogue) -> list[Action]:
    return [parse_action(text).resolved(catalogue) for text in texts]


def _risks(rules: Sequence[PolicyRule]) -> Iterator[str]:
    for rule in rules:
        if "*" in (*rule.verbs, *rule.groups) or any("*" in it for it in (*rule.resources, *rule.urls)):
            yield f"rule {written(rule)!r}: '*' also allows what nobody thought of, and what is added later."
        for verb in rule.verbs:
            risk = _RISKS.get(verb.partition(":")[0])
            if risk:
                yield f"rule {written(rule)!r}: {verb!r} {risk}."
        if "nodes/proxy" in rule.resources:
            yield (
                f"rule {written(rule)!r}: nodes/proxy reaches the kubelet, which runs commands in any pod of a node, "
                "and the API server's audit log does not show them."
            )


def _unread(roles: Roles) -> Iterator[str]:
    for name, rules in roles.items():
        if rules is None:
            yield f"you may not read the ClusterRole {name!r}, so what it allows was not looked at."


def refuse_strong(new: NewClient, judgement: Judgement, *, allowed: bool) -> None:
    """Raise CommandError for a strong account, unless whoever registers it says that it is meant."""
    if judgement.strong and not allowed:
        reasons = "; ".join(str(reason) for reason in judgement.strong)
        raise CommandError(
            f"the account {new.account.name} would be strong, that is, able to outlive the revocation of its tokens: "
            f"{reasons}. Give it less, or say --allow-strong; {_operator(new)}"
        )


def say(new: NewClient, judgement: Judgement) -> None:
    """Tell whoever registers the client what its account can do, as what it is."""
    for note in judgement.notes:
        typer.echo(f"warning: {printable(note)}", err=True)
    for reason in judgement.strong:
        typer.echo(f"warning: the account {new.account.name} is strong: {printable(str(reason))}", err=True)
    if judgement.strong:
        typer.echo(f"warning: {_operator(new)}", err=True)


def _operator(new: NewClient) -> str:
    return (
        "the broker refuses strong accounts, too, unless its operator allows them in the namespace "
        f"{new.id.namespace} (limits in its configuration)."
    )
