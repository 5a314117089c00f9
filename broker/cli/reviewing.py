"""What registration would say about manifests. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from broker.cli.manifest_files import FromFile, mapping, mappings
from broker.cli.manifests import BrokerAccount
from broker.cli.opting_in import ENABLED, LABEL, line
from broker.cli.pool import Pool
from broker.cli.problem_lines import Problem
from broker.model.access import Action, PolicyRule, Rules, grants, parse_action, read_rules
from broker.model.api_resources import Catalogue
from broker.model.api_words import cluster_scoped, rule_problems
from broker.model.client import Client, ClientId, Grant
from broker.model.decision import Rules as GrantRules
from broker.model.decision import grant_problem
from broker.model.expectations import Outcome, verify
from broker.model.strength import strong_reasons
from broker.registration.manifest import read_registration

_STRONG_BY_DEFAULT = frozenset({"admin", "cluster-admin", "edit"})
"""What Kubernetes' own ClusterRoles are, where no cluster is asked."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The broker's account, and whether strong accounts are meant."""

    broker: BrokerAccount
    allow_strong: bool


def review(pool: Pool, settings: Settings) -> list[Problem]:
    """Return what is wrong with the registrations and roles of the files, in their order."""
    problems = [problem for found in pool.clients for problem in _client(found, pool, settings)]
    problems += [problem for found in pool.roles for problem in _role(found, pool.catalogue)]
    return list(dict.fromkeys(problems))


def _client(found: FromFile, pool: Pool, settings: Settings) -> Iterator[Problem]:
    metadata = found.manifest["metadata"]
    if not metadata.get("namespace"):
        yield _error(found, "names no namespace", "write it down, build the kustomization first, or say -n")
        return
    if ClientId.parse(f"{metadata['namespace']}/{metadata['name']}") is None:
        yield _error(found, "has a name that Kubernetes does not take", "use a-z, 0-9 and '-'")
        return
    read = read_registration({**found.manifest, "metadata": {**metadata, "uid": ""}})
    if read.client is None:
        yield _error(found, read.fault.message if read.fault else "is not valid", "see docs/registration.md")
        return
    yield from _opt_in(found, pool, read.client.id.namespace)
    written = found.manifest["spec"]["grants"]
    for grant, document in zip(read.client.grants, written, strict=True):
        yield from _grant(found, pool, settings, read.client, grant)
        yield from _expectations(found, pool, grant, mapping(document.get("expect")))


def _grant(found: FromFile, pool: Pool, settings: Settings, client: Client, grant: Grant) -> Iterator[Problem]:
    problem = grant_problem(client.id.namespace, grant, GrantRules(settings.broker.namespace, api_audience=""))
    if problem:
        yield _error(found, f"grant {grant.name}: {problem}", "name another account, in another namespace")
    yield from _account(found, pool, grant)
    yield from _minting(found, pool, settings, grant)
    yield from _strength(found, pool, settings, grant)


def _account(found: FromFile, pool: Pool, grant: Grant) -> Iterator[Problem]:
    namespace, name = found.manifest["metadata"]["namespace"], grant.service_account
    if pool.find("ServiceAccount", namespace, name):
        return
    known = pool.sees("ServiceAccount")
    where = "in these files nor in the cluster" if known else "in these files, and the cluster was not looked at"
    what = f"grant {grant.name}: the account {namespace}/{name} is not {where}"
    yield Problem(found.file, found.thing, what, "add the ServiceAccount, or mend its name", is_error=known)


def _minting(found: FromFile, pool: Pool, settings: Settings, grant: Grant) -> Iterator[Problem]:
    """Yield what the broker lacks: tokens of the account, and anchors to bind them to."""
    namespace = found.manifest["metadata"]["namespace"]
    rules = pool.rules(namespace, settings.broker)
    needed = (
        Action("create", "", "serviceaccounts", "token", grant.service_account),
        Action("create", "", "secrets"),
        Action("delete", "", "secrets"),
    )
    missing = [str(action) for action in needed if not grants(rules, action)]
    if missing:
        account = f"{settings.broker.namespace}/{settings.broker.name}"
        what = f"grant {grant.name}: the broker's account {account} may not {'; '.join(missing)}"
        mend = "add the Role and RoleBinding that `tokenbroker client render` prints (deploy/client-namespace)"
        yield Problem(found.file, found.thing, what, mend, is_error=not rules.doubt)
    elif grants(rules, Action("create", "", "serviceaccounts", "token")):
        what = f"grant {grant.name}: the broker may make tokens of every account of the namespace"
        yield Problem(found.file, found.thing, what, "limit the Role by resourceNames to the account", is_error=False)


def _strength(found: FromFile, pool: Pool, settings: Settings, grant: Grant) -> Iterator[Problem]:
    namespace = found.manifest["metadata"]["namespace"]
    account = BrokerAccount(namespace, grant.service_account)
    reasons = [str(reason) for reason in strong_reasons(pool.rules(namespace, account))]
    if not pool.sees("ClusterRole"):
        reasons += [
            f"it has the ClusterRole {name}"
            for name in pool.cluster_roles(namespace, account)
            if name in _STRONG_BY_DEFAULT
        ]
    if reasons:
        what = f"grant {grant.name}: the account {grant.service_account} is strong: {'; '.join(reasons)}"
        mend = "give it less, or say --allow-strong if the broker's operator allows strong accounts there"
        yield Problem(found.file, found.thing, what, mend, is_error=not settings.allow_strong)


def _expectations(found: FromFile, pool: Pool, grant: Grant, expect: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what cannot be meant, and what the rights that are known contradict."""
    if pool.catalogue is None:
        return  # how they are written was seen with the rest of the resource
    namespace = found.manifest["metadata"]["namespace"]
    rules = pool.rules(namespace, BrokerAccount(namespace, grant.service_account))
    for expected in ("allow", "deny"):
        for text in expect.get(expected) or ():
            try:
                action = parse_action(text).resolved(pool.catalogue)
            except ValueError as error:
                yield _error(found, f"grant {grant.name}: expect.{expected}: {error}", "write the nearest right one")
                continue
            yield from _contradiction(found, grant, expected, action, rules)


def _contradiction(found: FromFile, grant: Grant, expected: str, action: Action, rules: Rules) -> Iterator[Problem]:
    actions = {"allow": [action], "deny": []} if expected == "allow" else {"allow": [], "deny": [action]}
    (finding,) = verify(actions["allow"], actions["deny"], rules)
    if finding.outcome is Outcome.FAILED:
        mend = "give the account the right" if expected == "allow" else "give the account less"
        yield Problem(found.file, found.thing, f"grant {grant.name}: {finding}", mend, is_error=expected == "deny")


def _opt_in(found: FromFile, pool: Pool, namespace: str) -> Iterator[Problem]:
    space = pool.find("Namespace", None, namespace)
    labels = mapping(space["metadata"].get("labels")) if space else {}
    if labels.get(LABEL) == ENABLED or (space is None and not pool.sees("Namespace")):
        return
    what = f"the namespace {namespace} does not let the broker mint" if space else f"there is no namespace {namespace}"
    yield Problem(found.file, found.thing, what, f"have a cluster admin run {line(namespace)}", is_error=False)


def _role(found: FromFile, catalogue: Catalogue | None) -> Iterator[Problem]:
    if catalogue is None:
        return
    for rule in read_rules(mappings(found.manifest.get("rules"))):
        for problem in rule_problems(catalogue, rule.groups, rule.resources, rule.verbs):
            yield _error(found, f"rule {rule}: {problem}", "mend the rule: see `tokenbroker rules`")
        yield from _out_of_reach(found, catalogue, rule)


def _out_of_reach(found: FromFile, catalogue: Catalogue, rule: PolicyRule) -> Iterator[Problem]:
    if found.manifest["kind"] != "Role":
        return
    for name in dict.fromkeys(cluster_scoped(catalogue, rule.groups, rule.resources)):
        what = f"rule {rule}: {name} are in no namespace, so a Role gives no right to them"
        yield Problem(found.file, found.thing, what, "use a ClusterRole and a ClusterRoleBinding", is_error=False)


def _error(found: FromFile, what: str, mend: str) -> Problem:
    return Problem(found.file, found.thing, what, mend)
