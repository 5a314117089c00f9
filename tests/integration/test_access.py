"""The models of access against the real API server: what it grants, what it serves, and what kubectl makes of words."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from broker.model.access import Action, Rules, grants, parse_action, read_review
from broker.model.api_resources import DISCOVERY_TYPE, Catalogue, parse_catalogue
from broker.model.expectations import Outcome, verify
from broker.model.strength import strong_questions, strong_reasons
from tests.support.cluster import Cluster
from tests.support.kubectl import KubectlError
from tests.support.lab import Lab
from tests.support.rest import Rest

NAMESPACE = "access"
REVIEWS = "/apis/authorization.k8s.io/v1"
ROLES = """
apiVersion: v1
kind: Namespace
metadata: {name: access}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: access}
rules:
  - {apiGroups: ["", apps], resources: [pods, pods/log, deployments], verbs: [get, list]}
  - {apiGroups: [""], resources: [nodes], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: named, namespace: access}
rules:
  - {apiGroups: [""], resources: [secrets, configmaps], resourceNames: [one], verbs: [get, list, create]}
  - {apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [web], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: wild, namespace: access}
rules:
  - {apiGroups: ["*"], resources: ["*/scale", "pods/*"], verbs: [get, update]}
  - {apiGroups: [batch], resources: ["*"], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: access-everywhere}
rules:
  - {apiGroups: [""], resources: [services], verbs: [list]}
  - {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
  - {nonResourceURLs: [/metrics, /logs/*], verbs: [get]}
"""
BINDINGS = {
    "reader": [("Role", "reader", "reader")],
    "named": [("Role", "named", "named")],
    "wild": [("Role", "wild", "wild")],
    "everywhere": [("ClusterRole", "access-everywhere", "everywhere")],
    "grouped": [],
    "boss": [("ClusterRole", "cluster-admin", "boss")],
}
ACTIONS = (
    "get pods",
    "list pods",
    "watch pods",
    "get pods/web",
    "get pods --subresource=log",
    "get pods/web --subresource=log",
    "get pods --subresource=exec",
    "get deployments",
    "get deployments.apps/web",
    "get deployments --subresource=scale",
    "update deployments --subresource=scale",
    "patch deployments --subresource=scale",
    "get deployments --subresource=status",
    "get secrets",
    "list secrets",
    "get secrets/one",
    "get secrets/two",
    "watch secrets/one",
    "create secrets",
    "get configmaps/one",
    "create serviceaccounts --subresource=token",
    "create serviceaccounts/web --subresource=token",
    "create serviceaccounts/other --subresource=token",
    "create jobs",
    "delete cronjobs.batch/one",
    "update jobs --subresource=status",
    "* jobs",
    "* *",
    "get *",
    "list services",
    "get services",
    "list endpoints",
    "get nodes --subresource=metrics",
    "get nodes --subresource=proxy",
    "create selfsubjectaccessreviews",
    "impersonate users/ann",
    "escalate roles",
    "get events.events.k8s.io",
    "get /metrics",
    "get /metrics/slis",
    "get /logs/kubelet.log",
    "get /version",
    "post /metrics",
)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Accounts with various rights, and what the API server says about them."""

    cluster: Cluster
    catalogue: Catalogue
    tokens: dict[str, str]

    async def rules(self, account: str) -> Rules:
        """Return an account's rules as it is shown them."""
        body = {"spec": {"namespace": NAMESPACE}}
        path = f"{REVIEWS}/selfsubjectrulesreviews"
        _, review = await self.cluster.request("POST", path, body, token=self.tokens[account])
        return read_review(review["status"])

    async def may(self, account: str, action: Action) -> bool:
        """Ask the authorizer, as the account."""
        path = f"{REVIEWS}/selfsubjectaccessreviews"
        body = {"spec": action.attributes(NAMESPACE)}
        status, review = await self.cluster.request("POST", path, body, token=self.tokens[account])
        assert status == 201, review
        return bool(review["status"]["allowed"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def accounts(installed: Lab) -> AsyncIterator[Accounts]:
    """Make them; ``grouped`` has its rights as one of all accounts of the namespace."""
    cluster = installed.cluster
    await cluster.apply(ROLES)
    for account, bindings in BINDINGS.items():
        await cluster.kubectl("create", "serviceaccount", account, "-n", NAMESPACE)
        for kind, role, name in bindings:
            where = () if name in {"everywhere", "boss"} else ("-n", NAMESPACE)
            what = "rolebinding" if where else "clusterrolebinding"
            subject = f"--serviceaccount={NAMESPACE}:{account}"
            await cluster.kubectl("create", what, f"access-{name}", f"--{kind.lower()}={role}", subject, *where)
    group = f"--group=system:serviceaccounts:{NAMESPACE}"
    await cluster.kubectl("create", "role", "shared", "--verb=list", "--resource=endpoints", "-n", NAMESPACE)
    await cluster.kubectl("create", "rolebinding", "shared", "--role=shared", group, "-n", NAMESPACE)
    tokens = {account: await cluster.token_for(NAMESPACE, account) for account in BINDINGS}
    yield Accounts(cluster, await discovered(cluster), tokens)
    await cluster.kubectl("delete", "clusterrolebinding", "access-everywhere", "access-boss")
    await cluster.kubectl("delete", "clusterrole", "access-everywhere")
    await cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


async def discovered(cluster: Cluster) -> Catalogue:
    """Return what the API server serves."""
    headers = {"Accept": DISCOVERY_TYPE, "Authorization": f"Bearer {cluster.admin_token}"}
    async with Rest.open(cluster.server, cluster.ca_file) as rest:
        return parse_catalogue(*[(await rest.call("GET", path, headers=headers))[1] for path in ("/api", "/apis")])


@pytest.mark.parametrize("account", BINDINGS)
async def test_rules_grant_what_the_authorizer_grants(accounts: Accounts, account: str) -> None:
    """For each action, what is read from the rules is what the API server decides."""
    rules = await accounts.rules(account)
    actions = [parse_action(text).resolved(accounts.catalogue) for text in ACTIONS]
    read = {str(action): grants(rules, action) is not None for action in actions}

    assert rules.doubt == ""
    assert read == {str(action): await accounts.may(account, action) for action in actions}


async def test_rights_of_all_accounts_of_a_namespace_are_seen(accounts: Accounts) -> None:
    """A denied right that comes through a group is found, with its rule."""
    endpoints = parse_action("get endpoints").resolved(accounts.catalogue)
    (finding,) = verify([], [endpoints], await accounts.rules("grouped"), NAMESPACE)

    assert finding.outcome is Outcome.FAILED
    assert str(finding.rule) == '{APIGroups:[""], Resources:["endpoints"], Verbs:["list"]}'


async def test_an_account_without_rights_has_nothing(accounts: Accounts) -> None:
    """What every account has is not taken for access: "deny * *" can hold."""
    everything = parse_action("* *").resolved(accounts.catalogue)
    await accounts.cluster.kubectl("create", "namespace", "access-none")
    body = {"spec": {"namespace": "access-none"}}
    _, review = await accounts.cluster.request(
        "POST", f"{REVIEWS}/selfsubjectrulesreviews", body, token=accounts.tokens["grouped"]
    )
    (finding,) = verify([], [everything], read_review(review["status"]), "access-none")

    assert finding.outcome is Outcome.HELD, finding


@pytest.mark.parametrize("account", BINDINGS)
async def test_who_is_not_strong_may_do_none_of_it(accounts: Accounts, account: str) -> None:
    """The reasons are there wherever the API server allows one of the questions; rights to one name add some."""
    asked = [await accounts.may(account, question) for question in strong_questions(NAMESPACE)]
    reasons = strong_reasons(await accounts.rules(account))

    assert any(asked) is any(not it.rule.names for it in reasons if it.rule)
    assert [it.what for it in reasons if it.rule and it.rule.names] == (
        ["create serviceaccounts/token", "get,list secrets"] if account == "named" else []
    )


async def test_a_role_shows_rights_on_nodes_that_it_does_not_give(accounts: Accounts) -> None:
    """The rules list them, the authorizer refuses them: so they are unknown until it is asked."""
    nodes = parse_action("get nodes").resolved(accounts.catalogue)
    (finding,) = verify([nodes], [], await accounts.rules("reader"), NAMESPACE)

    assert finding.rule is not None
    assert finding.outcome is Outcome.UNKNOWN
    assert not await accounts.may("reader", finding.questions[0])


@pytest.mark.parametrize(
    "word",
    [
        "pods",
        "pod",
        "po",
        "Pods",
        "deployments",
        "deploy",
        "deployments.apps",
        "deployments.v1.apps",
        "deploy.v1.apps",
        "events",
        "ev",
        "ev.events.k8s.io",
        "events.events",
        "hpa",
        "hpa.v1.autoscaling",
        "cj.bat",
        "cronjob.bat",
        "netpol",
        "sc",
        "crd",
        "tbc",
        "roles.rbac",
        "ingresses",
        "csr",
    ],
)
async def test_words_mean_what_kubectl_makes_of_them(accounts: Accounts, word: str) -> None:
    """Tried with kubectl itself, whose error names what it asked for in full."""
    found = accounts.catalogue.resolve(word)

    assert found is not None
    with pytest.raises(KubectlError, match=f': {re.escape(found.full_name)} "nothing" not found'):
        await accounts.cluster.kubectl("get", word, "nothing", "-n", NAMESPACE)


@pytest.mark.parametrize("word", ["podz", "pods.apps", "deployments.v2.apps", "cronjobs.v1.bat", "deployments.v1.app"])
async def test_words_that_kubectl_does_not_know_mean_nothing(accounts: Accounts, word: str) -> None:
    """Tried with kubectl itself."""
    assert accounts.catalogue.resolve(word) is None
    with pytest.raises(KubectlError, match="the server doesn't have a resource type"):
        await accounts.cluster.kubectl("get", word, "nothing", "-n", NAMESPACE)


async def test_the_catalogue_has_all_that_kubectl_lists(accounts: Accounts) -> None:
    """Names, short names, groups, scope, kind and verbs, in `kubectl api-resources`."""
    listed = (await accounts.cluster.kubectl("api-resources", "--no-headers", "-o", "wide")).splitlines()
    kubectl = {}
    for line in listed:
        words = line.split()
        verbs = next(position for position, word in enumerate(words) if word in {"true", "false"})
        group, slash, _ = words[verbs - 1].rpartition("/")
        key = (group if slash else "", words[0])
        kubectl[key] = (words[verbs] == "true", words[verbs + 1], set(words[verbs + 2].split(",")))
    served = {
        (it.group, it.plural): (it.namespaced, it.kind, set(it.verbs))
        for group in accounts.catalogue.groups
        for it in accounts.catalogue.in_group(group)
        if it.kind
    }

    assert served == kubectl
