"""What a cluster serves, and what kubectl's words for it mean."""

import pytest

from broker.model.api_resources import ApiResource, Subresource, parse_catalogue
from broker.model.api_words import cluster_scoped, rule_problems, unknown_word
from tests.support.discovery import ALL, CHANGES, CORE, GROUPS, catalogue, document, group, resource


@pytest.mark.parametrize(
    ("word", "full_name"),
    [
        ("pods", "pods"),
        ("pod", "pods"),
        ("po", "pods"),
        ("Pods", "pods"),
        ("deployment", "deployments.apps"),
        ("deploy", "deployments.apps"),
        ("deployments.apps", "deployments.apps"),
        ("deployments.v1.apps", "deployments.apps"),
        ("deploy.v1.apps", "deployments.apps"),
        ("events", "events"),
        ("events.events.k8s.io", "events.events.k8s.io"),
        ("events.v1.events.k8s.io", "events.events.k8s.io"),
        ("ev.events.k8s.io", "events.events.k8s.io"),
        ("ev.events", "events.events.k8s.io"),
        ("cronjobs.v1beta1.batch", "cronjobs.batch"),
        ("cronjobs.bat", "cronjobs.batch"),
        ("cj.bat", "cronjobs.batch"),
        ("jobs", "jobs.batch"),
        ("jobs.shop.example.com", "jobs.shop.example.com"),
        ("jobs.v1.shop.example.com", "jobs.shop.example.com"),
        ("ord", "orders.shop.example.com"),
        ("users", "users"),
        ("signers.certificates.k8s.io", "signers.certificates.k8s.io"),
    ],
)
def test_words_mean_what_kubectl_takes_them_for(word: str, full_name: str) -> None:
    """The core group goes first, then groups by preference; names go before short names."""
    found = catalogue().resolve(word)

    assert found is not None
    assert found.full_name == full_name


@pytest.mark.parametrize(
    "word",
    ["", "nothing", "pods.apps", "deployments.v2.apps", "deployments.v1.app", "pods/log", "cronjobs.v1.bat"],
)
def test_words_that_kubectl_does_not_know_mean_nothing(word: str) -> None:
    """A wrong group or version is no match, and a version wants the whole group."""
    assert catalogue().resolve(word) is None


def test_a_short_name_with_a_wrong_version_is_taken_for_any() -> None:
    """As kubectl does: its shortcut expander forgets the version."""
    found = catalogue().resolve("deploy.v9.apps")

    assert found is not None
    assert found.full_name == "deployments.apps"


def test_a_resource_is_read_whole() -> None:
    """All that the document says about a resource is there, and the versions of a group count together."""
    assert catalogue().find("", "pods") == ApiResource(
        group="",
        version="v1",
        plural="pods",
        singular="pod",
        short_names=("po",),
        kind="Pod",
        namespaced=True,
        verbs=ALL,
        subresources=(
            Subresource("log", ("get",)),
            Subresource("exec", ("create", "get")),
            Subresource("status", CHANGES),
        ),
    )
    merged = catalogue().find("batch", "cronjobs")
    assert merged is not None
    assert (merged.version, merged.verbs) == ("v1", (*ALL, "spin"))
    assert merged.subresource("status") == Subresource("status", CHANGES)


def test_the_core_group_comes_first_wherever_it_is_read() -> None:
    """The order of the documents does not matter."""
    assert parse_catalogue(GROUPS, CORE).groups[:2] == ("", "apps")


def test_what_rbac_knows_and_no_server_lists_is_there() -> None:
    """The kubelet's parts of nodes, and rights that are no calls."""
    nodes, roles = catalogue().find("", "nodes"), catalogue().find("rbac.authorization.k8s.io", "roles")

    assert nodes is not None
    assert nodes.subresource("metrics") == Subresource("metrics", ("get",))
    assert roles is not None
    assert roles.special_verbs == ("bind", "escalate")


def test_a_group_lists_each_resource_once() -> None:
    """Several versions of a resource are one line."""
    assert [it.full_name for it in catalogue().in_group("batch")] == ["jobs.batch", "cronjobs.batch"]


def test_a_group_that_does_not_answer_is_named() -> None:
    """What a stale group holds is unknown, not absent, and the words say so."""
    found = catalogue(group("metrics.k8s.io", v1beta1=None))

    assert found.stale == {"metrics.k8s.io"}
    assert "servers of metrics.k8s.io do not answer" in unknown_word(found, "podmetrics")
    assert list(rule_problems(found, ["metrics.k8s.io"], ["pods"], ["get"])) == []


def test_a_resource_without_a_kind_is_read() -> None:
    """A server may leave out what it does not know."""
    bare = parse_catalogue(document(group("x.example.com", v1=[{"resource": "things", "scope": "Namespaced"}])))

    assert bare.find("x.example.com", "things") == ApiResource(
        "x.example.com", "v1", "things", "things", (), "", namespaced=True, verbs=()
    )


def test_what_is_no_discovery_document_is_refused() -> None:
    """An old server answers with a list of versions."""
    with pytest.raises(ValueError, match=r"serves them from 1\.30"):
        parse_catalogue({"kind": "APIVersions", "versions": ["v1"]})


@pytest.mark.parametrize(
    ("group_name", "name", "verbs", "said"),
    [
        (
            "",
            "deployments",
            "get",
            "deployments is in the API group 'apps', not in the core group: write deployments.apps.",
        ),
        ("batch", "deployments", "get", "not in the API group 'batch': write deployments.apps."),
        ("extensions", "deployments", "get", "no API group 'extensions': write deployments.apps."),
        ("ap", "deployments", "get", "the cluster has no API group 'ap': write deployments.apps."),
        ("events.k8s", "events", "get", "the cluster has no API group 'events.k8s': write events."),
        ("v1.apps", "deployments", "get", "rules name no version: write deployments.apps."),
        ("appz", "gizmos", "get", "no API group 'appz'; did you mean apps?"),
        ("zzz", "gizmos", "get", "no API group 'zzz'."),
        ("", "pod", "get", "by their plural: write pods for pod."),
        ("apps", "deploy", "get", "by their plural: write deployments.apps for deploy.apps."),
        ("", "podz", "get", "no resource 'podz' in the core group; the nearest: pods."),
        ("apps", "deploymets", "get", "in the API group 'apps'; the nearest: deployments.apps."),
        ("", "xyzzy", "get", "no resource 'xyzzy' in the core group."),
        ("", "pods/logs", "get", "pods has no subresource 'logs'; did you mean log?"),
        ("", "pods/zzz", "get", "pods has no subresource 'zzz'; it has: log, exec, status."),
        ("", "secrets/data", "get", "secrets has no subresource 'data'; it has: none."),
        ("", "pods/log", "list", "'list' cannot be done to pods/log, only: get."),
        ("", "pods", "gett", "'gett' cannot be done to pods, only: create"),
        ("", "pods", "gett", "; did you mean get?"),
        ("", "pods", "get,gett", "'gett' cannot be done to pods"),
        ("authorization.k8s.io", "subjectaccessreviews", "get", "only: create."),
        ("shop.example.com", "orders", "get,lisst", ""),
        ("", "pods", "bind", "'bind' cannot be done to pods"),
        ("events.k8s.io", "events", "cancel", "'cancel' cannot be done to events.events.k8s.io"),
        ("", "pods", "lisst", "delete, deletecollection, get, list, patch, update, watch; did you mean list?"),
        ("*", "gizmos", "get", "no resource 'gizmos' in the API group '*'"),
    ],
)
def test_a_wrong_rule_is_met_with_the_nearest_right_one(group_name: str, name: str, verbs: str, said: str) -> None:
    """Wrong group, misspelt resource, subresource or verb, and verbs that a resource lacks."""
    problems = list(rule_problems(catalogue(), [group_name], [name], verbs.split(",")))

    assert said in "\n".join(problems)
    assert bool(problems) is bool(said)


@pytest.mark.parametrize(
    ("group_name", "name", "verbs"),
    [
        ("", "pods", "get,list,*"),
        ("*", "deployments", "get"),
        ("*", "*", "*"),
        ("", "*/scale", "get"),
        ("", "nodes/metrics", "get"),
        ("", "users", "impersonate"),
        ("authentication.k8s.io", "userextras/scopes", "impersonate"),
        ("", "pods", "impersonate-on:user-info:get"),
        ("rbac.authorization.k8s.io", "roles", "bind,escalate"),
        ("shop.example.com", "orders", "cancel"),
        ("", "pods", "use"),
    ],
)
def test_a_right_rule_is_let_through(group_name: str, name: str, verbs: str) -> None:
    """Wildcards, what only RBAC knows, and the own verbs of a foreign API."""
    assert list(rule_problems(catalogue(), [group_name], [name], verbs.split(","))) == []


def test_a_foreign_api_lacks_standard_verbs_like_any_other() -> None:
    """Its own verbs are let through, standard ones that it does not serve are not."""
    found = catalogue(group("y.example.com", v1=[resource("reviews", "Review", verbs=("create",))]))

    assert list(rule_problems(found, ["y.example.com"], ["reviews"], ["get"])) == [
        "'get' cannot be done to reviews.y.example.com, only: create."
    ]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("deployments.extensions", "no deployments in the API group 'extensions': write deployments.apps."),
        ("podd", "no resource 'podd'; the nearest: pods."),
        ("xyzzy.apps", "no resource 'xyzzy.apps'."),
    ],
)
def test_an_unknown_word_is_met_with_the_nearest_right_one(word: str, said: str) -> None:
    """For words as kubectl takes them."""
    assert said in unknown_word(catalogue(), word)


@pytest.mark.parametrize(
    ("groups", "resources", "verbs", "said"),
    [
        (["", "apps"], ["pods", "deployments"], ["get"], []),
        (["", "apps"], ["pods", "gizmos"], ["get"], ["there is no resource 'gizmos' in the core group."]),
        ([""], ["pods", "pods/log"], ["get", "list"], []),
        ([""], ["pods", "pods/log"], ["list"], ["'list' cannot be done to pods/log, only: get."]),
        ([""], ["pods/log", "pods/log"], ["list"], ["'list' cannot be done to pods/log, only: get."]),
        ([], ["pods"], ["get"], []),
        ([""], [], ["get"], []),
        ([""], ["pods"], [], []),
    ],
)
def test_verbs_groups_and_resources_of_a_rule_multiply(
    groups: list[str], resources: list[str], verbs: list[str], said: list[str]
) -> None:
    """What is of use somewhere is right; each resource has to be of use."""
    assert list(rule_problems(catalogue(), groups, resources, verbs)) == said


def test_resources_without_a_namespace_are_found() -> None:
    """A Role gives no right to nodes or their parts; of namespaces it means its own."""
    spaces = catalogue(group("", v1=[resource("namespaces", "Namespace", namespaced=False)]))

    assert list(cluster_scoped(spaces, ["", "apps"], ["pods", "nodes/metrics", "namespaces", "users", "*"])) == [
        "nodes",
        "users",
    ]
