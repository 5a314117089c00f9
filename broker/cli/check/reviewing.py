"""What registration would say about manifests. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from broker.cli.check.checks import never_granted
from broker.cli.check.manifest_files import FromFile, mappings
from broker.cli.check.minting import needed_actions
from broker.cli.check.pool import Pool
from broker.cli.check.problem_lines import Problem
from broker.cli.client.opting_in import MINTS, MINTS_UNBOUND, has, line
from broker.cli.manifests import BrokerAccount
from broker.model.access import Action, PolicyRule, Rules, grants, parse_action, read_rules
from broker.model.api_resources import Catalogue
from broker.model.api_words import cluster_scoped, rule_problems
from broker.model.client import Client, ClientId, Grant, Revocation
from broker.model.expectations import Outcome, verify
from broker.model.strength import strong_reasons
from broker.registration.manifest import read_registration

_STRONG_BY_DEFAULT = frozenset({"admin", "cluster-admin", "edit"})
"""What Kubernetes' own ClusterRoles are, where no cluster is asked."""

_SHOWN = 3
"""How many reasons for an account's strength are told; the role `edit` has dozens."""


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
    yield from _opt_in(found, pool, read.client)
    for grant in read.client.grants:
        yield from _grant(found, pool, settings, read.client, grant)
        yield from _expectations(found, pool, grant)


def _grant(found: FromFile, pool: Pool, settings: Settings, client: Client, grant: Grant) -> Iterator[Problem]:
    problem = never_granted(client.id.namespace, grant, settings.broker)
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
    missing = [str(action) for action in needed_actions(grant.service_account) if not grants(rules, action)]
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
        more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        shown = "; ".join([*reasons[:_SHOWN], *more])
        what = f"grant {grant.name}: the account {grant.service_account} is strong: {shown}"
        mend = "give it less, or say --allow-strong if the broker's operator allows strong accounts there"
        yield Problem(found.file, found.thing, what, mend, is_error=not settings.allow_strong)


def _expectations(found: FromFile, pool: Pool, grant: Grant) -> Iterator[Problem]:
    """Yield what cannot be meant, and what the rights that are known contradict."""
    if pool.catalogue is None:
        return  # how they are written was seen with the rest of the resource
    namespace = found.manifest["metadata"]["namespace"]
    rules = pool.rules(namespace, BrokerAccount(namespace, grant.service_account))
    for expected, texts in (("allow", grant.expect.allow), ("deny", grant.expect.deny)):
        for text in texts:
            try:
                action = parse_action(text).resolved(pool.catalogue)
            except ValueError as error:
                yield _error(found, f"grant {grant.name}: expect.{expected}: {error}", "write the nearest right one")
            else:
                yield from _contradiction(found, grant, expected, action, rules)


def _contradiction(found: FromFile, grant: Grant, expected: str, action: Action, rules: Rules) -> Iterator[Problem]:
    allow, deny = ([action], []) if expected == "allow" else ([], [action])
    (finding,) = verify(allow, deny, rules, found.manifest["metadata"]["namespace"])
    if finding.outcome is Outcome.FAILED:
        mend = "give the account the right" if expected == "allow" else "give the account less"
        yield Problem(found.file, found.thing, f"grant {grant.name}: {finding}", mend, is_error=expected == "deny")


def _opt_in(found: FromFile, pool: Pool, client: Client) -> Iterator[Problem]:
    namespace = client.id.namespace
    space = pool.find("Namespace", None, namespace)
    if space is None and pool.sees("Namespace"):
        yield _closed(found, f"there is no namespace {namespace}", namespace, MINTS)
    elif space and not has(space, MINTS):
        yield _closed(found, f"the namespace {namespace} does not let the broker mint", namespace, MINTS)
    unbound = any(grant.revocation is Revocation.NONE for grant in client.grants)
    if space and unbound and not has(space, MINTS_UNBOUND):
        what = f"the namespace {namespace} does not let the broker mint what cannot be revoked"
        yield _closed(found, what, namespace, MINTS_UNBOUND)


def _closed(found: FromFile, what: str, namespace: str, label: tuple[str, str]) -> Problem:
    mend = f"have a cluster admin run {line(namespace, label)}"
    return Problem(found.file, found.thing, what, mend, is_error=False)


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
