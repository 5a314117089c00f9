"""``check -f``: what registration would say about manifests in files."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.cli.check.manifest_files import FromFile, read_files
from broker.cli.check.pool import Pool, in_files
from broker.cli.check.reviewing import Settings, review
from broker.cli.manifests import BrokerAccount, Manifest, manifests
from broker.model.api_resources import Catalogue
from tests.support.command import Ended, command
from tests.support.discovery import catalogue
from tests.unit.test_manifests import FULL

SPACE: Manifest = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop", "labels": {"tokenbroker.dev/clients": "enabled"}},
}
VIEW: Manifest = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "view"},
    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
}
PROMETHEUS: Manifest = VIEW | {"metadata": {"name": "tokenbroker-prometheus"}}
BROKER = BrokerAccount("tokenbroker", "tokenbroker")


def complete(**changes: Any) -> list[Manifest]:
    """Return all that a client needs, with the objects of some kinds taken away (None) or changed."""
    found = [SPACE, *manifests(FULL)]
    kept = [it for it in found if changes.get(it["kind"], it) is not None]
    return [{**it, **changes.get(it["kind"], {})} for it in kept]


def problems(
    files: list[Manifest], *, known: Catalogue | None = None, cluster: tuple[Manifest, ...] = (), strong: bool = False
) -> list[str]:
    """Return what is found, one line each."""
    pool = Pool(tuple(FromFile("a.yaml", it) for it in files), cluster, known)
    return [str(problem) for problem in review(pool, Settings(BROKER, allow_strong=strong))]


def granted(**changes: Any) -> dict[str, Any]:
    """Return a change of the TokenClient's only grant."""
    (client,) = [it for it in manifests(FULL) if it["kind"] == "TokenClient"]
    return {"TokenClient": {"spec": client["spec"] | {"grants": [client["spec"]["grants"][0] | changes]}}}


def test_what_is_complete_has_no_problems() -> None:
    """As `client render` prints it, with the namespace that is opted in."""
    assert problems(complete()) == []
    assert problems(complete(), known=catalogue(), cluster=(VIEW, PROMETHEUS)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            granted(revocation="None"),
            (
                "warning: TokenClient shop/web: the namespace shop does not let the broker mint what cannot be revoked"
                "; have a cluster admin run kubectl label namespace shop tokenbroker.dev/unbound-tokens=allowed"
            ),
        ),
        ({"TokenClient": {"metadata": {"name": "web"}}}, "TokenClient web: names no namespace; write it down"),
        ({"TokenClient": {"metadata": {"name": "W", "namespace": "shop"}}}, "name that Kubernetes does not take"),
        ({"TokenClient": {"spec": None}}, "error: TokenClient shop/web: spec"),
        ({"TokenClient": {"spec": {"grants": []}}}, "spec.grants: List should have at least 1 item"),
        (granted(serviceAccount={"name": "default"}), "grant default: The account 'default' is never granted"),
        (granted(expect={"deny": ["GET pods"]}), "'GET' is not a verb"),
        (
            {"ServiceAccount": None},
            (
                "warning: TokenClient shop/web: grant default: the account shop/web is not in these files, and the "
                "cluster was not looked at; add the ServiceAccount"
            ),
        ),
        (
            {"Role": {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]}},
            "may not create serviceaccounts/web --subresource=token; delete secrets; add the Role and RoleBinding",
        ),
        (
            {"Role": {"rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["create", "delete"]}]}},
            "the broker may make tokens of every account of the namespace; limit the Role",
        ),
        ({"Role": {"rules": "all"}}, "may not create serviceaccounts/web --subresource=token"),
        ({"RoleBinding": None}, "warning: TokenClient shop/web: grant default: the broker's account"),
        (
            {"ClusterRole": {"rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}]}},
            "error: TokenClient shop/web: grant default: the account web is strong: it may patch deployments.apps",
        ),
        (
            {"ClusterRoleBinding": {"roleRef": {"kind": "ClusterRole", "name": "edit"}}},
            "the account web is strong: it has the ClusterRole edit",
        ),
        (
            {"Namespace": {"metadata": {"name": "shop"}}},
            (
                "warning: TokenClient shop/web: the namespace shop does not let the broker mint; have a cluster "
                "admin run kubectl label namespace shop tokenbroker.dev/clients=enabled"
            ),
        ),
    ],
)
def test_without_a_cluster_the_files_are_looked_at(changes: dict[str, Any], words: str) -> None:
    """Schema, names, the account, the broker's rights, strong accounts and the namespace."""
    assert words in "\n".join(problems(complete(**changes)))


def test_what_only_the_cluster_knows_is_no_problem_without_it() -> None:
    """A namespace that is made elsewhere, and names of resources."""
    odd = {"rules": [{"apiGroups": [""], "resources": ["podz"], "verbs": ["get"]}]}

    assert problems(complete(Namespace=None, ClusterRole=odd)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ServiceAccount": None}, "error: TokenClient shop/web: grant default: the account shop/web is not in these"),
        ({"Namespace": None}, "warning: TokenClient shop/web: there is no namespace shop; have a cluster admin"),
        ({"RoleBinding": None}, "error: TokenClient shop/web: grant default: the broker's account tokenbroker/"),
        (granted(expect={"allow": ["get podz"]}), "expect.allow: 'get podz': the cluster has no resource"),
        (
            granted(expect={"deny": ["get pods"]}),
            "error: TokenClient shop/web: grant default: deny 'get pods' does not",
        ),
        (
            granted(expect={"allow": ["delete pods"]}),
            "warning: TokenClient shop/web: grant default: allow 'delete pods'",
        ),
        (
            {"ClusterRole": {"rules": [{"apiGroups": [""], "resources": ["podz"], "verbs": ["get"]}]}},
            (
                "error: ClusterRole tokenbroker-access.shop.web: rule "
                '{APIGroups:[""], Resources:["podz"], Verbs:["get"]}: there is no resource'
            ),
        ),
        (
            {"Role": {"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]}},
            (
                "warning: Role shop/tokenbroker-access-web: rule "
                '{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}: nodes are in no namespace'
            ),
        ),
    ],
)
def test_with_a_cluster_its_names_and_objects_count(changes: dict[str, Any], words: str) -> None:
    """What is neither in the files nor there is an error."""
    assert words in "\n".join(problems(complete(**changes), known=catalogue(), cluster=(VIEW, PROMETHEUS)))


def test_resources_without_a_namespace_are_right_in_a_cluster_role() -> None:
    """There they mean something."""
    nodes = {"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]}

    assert problems(complete(ClusterRole=nodes), known=catalogue(), cluster=(VIEW, PROMETHEUS)) == []


def test_objects_of_the_cluster_fill_in() -> None:
    """The account, roles and bindings may be there already; those of the files count instead of older ones."""
    (client,) = [it for it in manifests(FULL) if it["kind"] == "TokenClient"]
    others = tuple(it for it in complete() if it != client)
    mine = next(it for it in others if it["kind"] == "Role" and it["metadata"]["name"] == "tokenbroker-mint-web")
    there = (VIEW, PROMETHEUS, *others)

    assert problems([client], known=catalogue(), cluster=there) == []
    assert "may not create" in "\n".join(problems([client, mine | {"rules": []}], known=catalogue(), cluster=there))


def test_rights_by_groups_and_by_user_name_count() -> None:
    """A binding to all accounts, to those of a namespace, or to the account as a user."""
    role = VIEW | {
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
    }

    def found(kind: str, name: str, namespace: str | None = "shop") -> bool:
        binding = {
            "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
            "metadata": {"name": "b"} | ({"namespace": namespace} if namespace else {}),
            "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": kind, "name": name}],
        }
        return "is strong" in "\n".join(problems([*complete(), role, binding]))

    for group in ("system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"):
        assert found("Group", group)
        assert found("Group", group, None)
    assert found("User", "system:serviceaccount:shop:web")
    assert not found("Group", "system:serviceaccounts:other")
    assert not found("User", "web")
    assert not found("Group", "system:authenticated", "other")


def test_strong_accounts_that_are_meant_are_a_warning() -> None:
    """The broker's operator has a word in it all the same."""
    strong = {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}]}

    (problem,) = problems(complete(ClusterRole=strong), strong=True)
    assert problem.startswith("a.yaml: warning: TokenClient shop/web: grant default: the account web is strong")


def write(folder: Path, name: str, *documents: Any) -> Path:
    """Write YAML documents to a file."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump_all(documents))
    return file


def test_files_and_folders_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    """Several documents, lists, JSON, folders in folders; what is no object is passed over."""
    write(tmp_path, "a.yaml", SPACE, None, {"values": 1}, {"kind": "List", "items": [VIEW, {"kind": "x"}]})
    (tmp_path / "b.json").write_text(json.dumps(PROMETHEUS))
    write(tmp_path, "c/d.yml", {"kind": "Role", "metadata": {"name": "r"}})
    write(tmp_path, "notes.txt", VIEW)

    found, unreadable = read_files([tmp_path], "shop")

    assert [(Path(it.file).name, it.thing) for it in found] == [
        ("a.yaml", "Namespace shop"),
        ("a.yaml", "ClusterRole view"),
        ("b.json", "ClusterRole tokenbroker-prometheus"),
        ("d.yml", "Role shop/r"),
    ]
    assert unreadable == []
    assert in_files(found).find("Role", "shop", "r") is not None
    assert [it.thing for it in read_files([tmp_path / "c"], None)[0]] == ["Role r"]


def check(*arguments: str, stdin: str = "") -> Ended:
    """Run the command without a cluster."""
    return command("check", "--offline", *arguments, stdin=stdin)


def test_errors_end_with_1_and_warnings_with_0(tmp_path: Path) -> None:
    """One line a finding, for people and for programs; a good file is silent."""
    good = write(tmp_path, "good.yaml", *complete())
    warned = write(tmp_path, "warned.yaml", *complete(ServiceAccount=None))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [\n")
    ended = [check("-f", str(file)) for file in (good, warned, broken)]
    listed = json.loads(check("-f", str(warned), "-f", str(broken), "-o", "json").stdout)

    assert [it.code for it in ended] == [0, 0, 1]
    assert (ended[0].stdout, ended[0].stderr) == ("", "0 errors, 0 warnings\n")
    assert ended[1].stdout.startswith(f"{warned}: warning: TokenClient shop/web: grant default: the account")
    assert ended[1].stderr == "0 errors, 1 warnings\n"
    assert ended[2].stdout == f"{broken}: error: is no YAML near line 2; kubectl could not read it either\n"
    assert [it["severity"] for it in listed] == ["error", "warning"]
    assert set(listed[1]) == {"severity", "file", "object", "what", "mend"}
    assert listed[1]["object"] == "TokenClient shop/web"


def test_nothing_to_check_is_no_success(tmp_path: Path) -> None:
    """An empty folder, and files that hold no client, or one whose kind is misspelt, which is told."""
    (client,) = [it for it in complete() if it["kind"] == "TokenClient"]
    (tmp_path / "empty").mkdir()
    write(tmp_path, "other/x.yaml", VIEW, {**client, "kind": "TokenCleint"})
    empty, other = check("-f", str(tmp_path / "empty")), check("-f", str(tmp_path / "other"))

    line = "error: holds no TokenClient; name the files with the clients, or their folder\n"
    assert (empty.code, empty.stdout) == (1, f"{tmp_path / 'empty'}: {line}")
    assert (other.code, other.stdout) == (1, f"{tmp_path / 'other'}: {line}")
    assert other.stderr == "not looked at: 1 TokenCleint\n1 errors, 0 warnings\n"


def test_what_is_there_twice_is_an_error(tmp_path: Path) -> None:
    """The API server would take both, and the later one would win; the same file named twice is one."""
    first = write(tmp_path, "a.yaml", *complete())
    second = write(tmp_path, "b.yaml", *complete(Namespace=None))
    ended, same = check("-f", str(tmp_path)), check("-f", str(first), "-f", str(first))

    assert ended.code == 1
    for it in complete(Namespace=None):
        name = "/".join(filter(None, (it["metadata"].get("namespace"), it["metadata"]["name"])))
        assert f"{second}: error: {it['kind']} {name}: is in {first} already; keep one" in ended.stdout
    assert (same.code, same.stdout) == (0, "")


def test_objects_of_the_same_name_in_other_places_are_others(tmp_path: Path) -> None:
    """Another namespace, another kind, another API group."""
    role: Manifest = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}}
    others = [role, {**role, "kind": "ServiceAccount", "apiVersion": "v1"}, {**role, "apiVersion": "example.com/v1"}]
    elsewhere = {**role, "metadata": {"name": "x", "namespace": "other"}}

    assert "already" not in check("-f", str(write(tmp_path, "a.yaml", *others, elsewhere))).stdout
    assert "is there twice" in check("-f", str(write(tmp_path, "a.yaml", role, role))).stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "tokenbroker.dev/v1"}, "has the apiVersion tokenbroker.dev/v1; write tokenbroker.dev/v1alpha1"),
        ({"metadata": {"generateName": "web-"}}, "TokenClient: has no name; write metadata.name"),
    ],
)
def test_a_client_that_would_not_be_one_is_an_error(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    """It would be passed over, and the pull request would be green."""
    ended = check("-f", str(write(tmp_path, "a.yaml", *complete(TokenClient=change))))

    assert ended.code == 1
    assert words in ended.stdout


def test_of_a_very_strong_account_three_reasons_are_told() -> None:
    """The role `edit` has dozens: a line that nobody reads says nothing."""
    kinds = ("deployments", "daemonsets", "statefulsets", "replicasets")
    rules = [{"apiGroups": ["apps"], "resources": [kind], "verbs": ["create"]} for kind in kinds]
    everything = VIEW | {"rules": [*rules, {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}]}
    (line,) = [
        it for it in problems(complete(), known=catalogue(), cluster=(everything, PROMETHEUS)) if "is strong" in it
    ]

    assert line.count("it may create ") == 3
    assert "; and 2 more; give it less" in line


def test_stdin_is_a_file(tmp_path: Path) -> None:
    """What kustomize builds is piped in."""
    text = write(tmp_path, "x.yaml", *complete(ServiceAccount=None)).read_text()

    assert check("-f", "-", stdin=text).stdout.startswith("-: warning: TokenClient shop/web")


def test_an_allowed_strong_account_and_another_broker_are_options(tmp_path: Path) -> None:
    """They mean what they mean for `client add`."""
    strong = {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}]}
    file = str(write(tmp_path, "x.yaml", *complete(ClusterRole=strong)))

    assert check("-f", file).code == 1
    assert check("-f", file, "--allow-strong").code == 0
    assert "other/broker may not create" in check("-f", file, "--broker", "other/broker").stdout


@pytest.mark.parametrize(
    ("arguments", "words"), [((), "name the manifests with -f FILE"), (("-f", "/nowhere/x.yaml"), "there is no file")]
)
def test_what_cannot_be_meant_ends_with_2(arguments: tuple[str, ...], words: str) -> None:
    """Nothing to check is no success."""
    ended = check(*arguments)

    assert (ended.code, ended.stdout) == (2, "")
    assert words in ended.stderr
