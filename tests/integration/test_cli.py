"""``tokenbroker client`` against a real API server, with the rights of the people who run it."""

import asyncio
import json
import os
import shlex
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.cli.client.creating import content
from broker.cli.client.rotation import PLACE, with_new_secret
from broker.cli.cluster import Access, connect
from broker.cli.errors import CommandError
from broker.cli.finding import find_client
from broker.identity import secret
from tests.support.broker import BrokerProcess
from tests.support.cluster import Cluster
from tests.support.command import Ended, command, command_with
from tests.support.lab import Lab
from tests.support.processes import until

ROOT = Path(__file__).resolve().parents[2]
BROKER = "system:serviceaccount:tokenbroker:tokenbroker"
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "TokenClient": "/apis/tokenbroker.dev/v1alpha1/namespaces/{}/tokenclients",
}


@dataclass(frozen=True, slots=True)
class Shop:
    """A namespace with a service account ``web``, and whoever works on it."""

    cluster: Cluster
    namespace: str

    async def run(self, *arguments: str, stdin: str = "", user: Path | None = None) -> Ended:
        """Run a command in the namespace, as cluster admin unless somebody else is named."""
        kubeconfig = user or self.cluster.kubeconfig
        return await command_with(kubeconfig, *arguments, "-n", self.namespace, stdin=stdin)

    async def add(self, *more: str, name: str = "web", user: Path | None = None) -> Ended:
        """Register a client for the account ``web``."""
        return await self.run("client", "add", name, "--service-account", "web", *more, user=user)

    async def get(self, kind: str, name: str = "") -> tuple[int, Any]:
        """Read one object, or the list of all of a kind."""
        path = PATHS[kind].format(self.namespace)
        return await self.cluster.request("GET", f"{path}/{name}" if name else path)

    async def post(self, kind: str, document: dict[str, Any]) -> None:
        """Make an object as somebody else would."""
        status, body = await self.cluster.request("POST", PATHS[kind].format(self.namespace), document)
        assert status == 201, body

    async def names(self) -> set[str]:
        """Return the objects of all kinds, but for what each namespace has."""
        found = set()
        for kind in PATHS:
            _, listed = await self.get(kind)
            found |= {f"{kind} {it['metadata']['name']}" for it in listed["items"]}
        return found - {"ServiceAccount default", "ServiceAccount web"}

    async def member(self, name: str, cluster_role: str) -> Path:
        """Return the kubeconfig of an account that has a ClusterRole in this namespace only."""
        await self.post("ServiceAccount", {"metadata": {"name": name}})
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": cluster_role}
        await self.post("RoleBinding", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
        return self.cluster.kubeconfig_for(await self.cluster.token_for(self.namespace, name))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster(installed: Lab) -> Cluster:
    """Return a cluster with deploy/base, whose namespace admins may write TokenClients by now."""
    await until(lambda: _admins_may_register(installed.cluster), what="rights are aggregated", seconds=30)
    return installed.cluster


async def _admins_may_register(cluster: Cluster) -> bool:
    _, admin = await cluster.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin")
    return any("tokenbroker.dev" in rule["apiGroups"] for rule in admin["rules"])


@pytest_asyncio.fixture(loop_scope="session")
async def shop(cluster: Cluster) -> AsyncIterator[Shop]:
    """Make a namespace of the test's own with the account ``web``."""
    made = Shop(cluster, f"shop-{uuid.uuid4().hex[:8]}")
    metadata = {"name": made.namespace, "labels": {"tokenbroker.dev/clients": "enabled", **cluster.marks}}
    await cluster.request("POST", "/api/v1/namespaces", {"metadata": metadata})
    await made.post("ServiceAccount", {"metadata": {"name": "web"}})
    yield made
    await cluster.request("DELETE", f"/api/v1/namespaces/{made.namespace}")


async def test_add_makes_everything_and_shows_the_secret_once(shop: Shop) -> None:
    """One command makes the rights, the broker's right to mint and the TokenClient; stdout is the secret alone."""
    ended = await shop.add("--cluster-role", "view", "--rule", "get,list pods,deployments.apps", "--owner", "team")

    assert ended.code == 0, ended.stderr
    assert secret.well_formed(ended.stdout.strip())
    assert await shop.names() == {
        "Role tokenbroker-access-web",
        "RoleBinding tokenbroker-access-web",
        "RoleBinding tokenbroker-access-web.view",
        "Role tokenbroker-mint-web",
        "RoleBinding tokenbroker-mint-web",
        "TokenClient web",
    }
    _, client = await shop.get("TokenClient", "web")
    digest = secret.format_digest(secret.digest(ended.stdout.strip()))
    assert client["spec"] == {
        "owner": "team",
        "authentication": [{"clientSecret": {"digests": [digest]}}],
        "grants": [
            {
                "name": "default",
                "serviceAccount": {"name": "web"},
                "ttl": {"default": "15m", "max": "1h"},
                "revocation": "Grant",
                "reuse": "0s",
            }
        ],
    }


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("create serviceaccounts/web --subresource=token", "yes"),
        ("create serviceaccounts/other --subresource=token", "no"),
        ("create secrets", "yes"),
        ("delete secrets", "yes"),
        ("get secrets", "no"),
        ("list secrets", "no"),
        ("update secrets", "no"),
        ("get serviceaccounts", "no"),
        ("list pods", "no"),
        ("create rolebindings", "no"),
    ],
)
async def test_add_gives_the_broker_only_what_it_needs(shop: Shop, question: str, answer: str) -> None:
    """The broker may mint for the named account and make and delete Secrets there, and nothing else."""
    await shop.add("--cluster-role", "view")
    status, review = await shop.cluster.request(
        "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", _review(shop.namespace, question)
    )

    assert status == 201
    assert review["status"]["allowed"] is (answer == "yes")


def _review(namespace: str, question: str) -> dict[str, Any]:
    verb, resource, *options = question.split()
    plural, _, name = resource.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "resource": plural, "name": name}
    if options:
        attributes["subresource"] = options[0].removeprefix("--subresource=")
    group = {"rolebindings": "rbac.authorization.k8s.io"}.get(plural, "")
    groups = ["system:serviceaccounts", "system:serviceaccounts:tokenbroker", "system:authenticated"]
    return {"spec": {"user": BROKER, "groups": groups, "resourceAttributes": {**attributes, "group": group}}}


async def test_account_may_do_what_its_rules_say(shop: Shop) -> None:
    """The client's account gets the rights that were named, in its namespace."""
    await shop.add("--rule", "get,list pods,deployments.apps")
    who = f"--as=system:serviceaccount:{shop.namespace}:web"
    listing = await shop.cluster.kubectl("auth", "can-i", "--list", who, "-n", shop.namespace)

    lines = [line.split() for line in listing.splitlines()]
    assert ["deployments.apps", "[]", "[]", "[get", "list]"] in lines
    assert ["pods", "[]", "[]", "[get", "list]"] in lines


async def test_registered_client_gets_a_token_that_works(shop: Shop, broker: BrokerProcess, tmp_path: Path) -> None:
    """From nothing to a token in two commands: add, then get; the API server takes the token."""
    file = tmp_path / "secret"
    await shop.add("--cluster-role", "view", "--secret-file", str(file))
    ask = ("token", "get", "--url", broker.url, "--client", f"{shop.namespace}/web", "--secret-file", str(file))
    await until(lambda: _served(ask), what="the broker knows the client")
    token = (await asyncio.to_thread(command, *ask)).stdout.strip()
    status, _ = await shop.cluster.request("GET", f"/api/v1/namespaces/{shop.namespace}/pods", token=token)
    seen = command("token", "inspect", stdin=token)

    assert status == 200
    assert f"system:serviceaccount:{shop.namespace}:web" in seen.stdout
    assert "Bound to:   secret tokenbroker-anchor-" in seen.stdout


async def test_suspended_client_gets_no_token(shop: Shop, broker: BrokerProcess, tmp_path: Path) -> None:
    """After a suspension the broker refuses, and the command says why and exits with 1."""
    file = tmp_path / "secret"
    await shop.add("--secret-file", str(file))
    ask = ("token", "get", "--url", broker.url, "--client", f"{shop.namespace}/web", "--secret-file", str(file))
    await until(lambda: _served(ask), what="the broker knows the client")
    await shop.run("client", "suspend", "web")
    await until(lambda: _ends_with(ask, 1), what="the broker knows of the suspension")
    refused = await asyncio.to_thread(command, *ask)

    assert "client_suspended" in refused.stderr
    assert refused.stdout == ""


async def _served(ask: tuple[str, ...]) -> bool:
    return await _ends_with(ask, 0)


async def _ends_with(ask: tuple[str, ...], code: int) -> bool:
    return (await asyncio.to_thread(command, *ask)).code == code


async def test_add_makes_the_account_on_request(shop: Shop) -> None:
    """With --create the account is made and labelled; without it, an account must be there."""
    refused = await shop.run("client", "add", "ci", "--service-account", "runner")
    made = await shop.run("client", "add", "ci", "--service-account", "runner", "--create", "-o", "json")

    assert refused.code == 1
    assert "--create" in refused.stderr
    assert made.code == 0, made.stderr
    document = json.loads(made.stdout)
    assert secret.well_formed(document["secret"])
    _, account = await shop.get("ServiceAccount", "runner")
    assert account["metadata"]["labels"]["tokenbroker.dev/client"] == "ci"


async def test_running_add_again_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    """A second run finds everything made, keeps the secret that the client has, and leaves no file behind."""
    await shop.add("--cluster-role", "view")
    _, before = await shop.get("TokenClient", "web")
    again = await shop.add("--cluster-role", "view", "--secret-file", str(tmp_path / "secret"))
    _, after = await shop.get("TokenClient", "web")

    assert again.code == 0, again.stderr
    assert "keeps its secret" in again.stderr
    assert not (tmp_path / "secret").exists()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


async def test_running_add_with_other_rights_is_refused(shop: Shop) -> None:
    """What was made with other content is not overwritten, not even our own."""
    await shop.add("--rule", "get pods")
    again = await shop.add("--rule", "get,list pods")

    assert again.code == 1
    assert "other content" in again.stderr


@pytest.mark.parametrize("kind", ["RoleBinding", "TokenClient", "Role"])
async def test_foreign_objects_are_left_alone_and_the_rest_is_undone(shop: Shop, kind: str, tmp_path: Path) -> None:
    """Where a name is taken by an object of somebody else, nothing is made and nothing of it is changed."""
    foreign = _foreign(kind)
    await shop.post(kind, foreign)
    before = await shop.names()
    _, held = await shop.get(kind, foreign["metadata"]["name"])
    ended = await shop.add("--cluster-role", "view", "--secret-file", str(tmp_path / "secret"))
    _, still = await shop.get(kind, foreign["metadata"]["name"])

    assert ended.code == 1
    assert "was not made by tokenbroker" in ended.stderr
    assert await shop.names() == before
    assert _as_its_owner_made_it(still) == _as_its_owner_made_it(held)
    assert not (tmp_path / "secret").exists()


def _as_its_owner_made_it(resource: dict[str, Any]) -> dict[str, Any]:
    """Return a resource without what a broker writes beside."""
    metadata = {
        key: resource["metadata"][key]
        for key in ("name", "uid", "labels", "annotations")
        if key in resource["metadata"]
    }
    return {key: value for key, value in resource.items() if key not in {"metadata", "status"}} | {"metadata": metadata}


def _foreign(kind: str) -> dict[str, Any]:
    name = {"TokenClient": "web"}.get(kind, "tokenbroker-mint-web")
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "nobody"}
    grant = {"serviceAccount": {"name": "web"}, "vault": {}}
    bodies: dict[str, dict[str, Any]] = {
        "RoleBinding": {"roleRef": role, "subjects": []},
        "TokenClient": {"spec": {"grants": [grant]}},
        "Role": {"rules": []},
    }
    api = {"TokenClient": "tokenbroker.dev/v1alpha1"}.get(kind, "rbac.authorization.k8s.io/v1")
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **bodies[kind]}


async def test_existing_account_is_not_taken_over(shop: Shop) -> None:
    """--create does not label an account that somebody else made."""
    ended = await shop.add("--create")

    assert ended.code == 1
    assert "Leave out --create" in ended.stderr
    assert await shop.names() == set()


async def test_namespace_admin_needs_no_cluster_rights(shop: Shop) -> None:
    """Who has the ClusterRole admin in the namespace can register, rotate and remove a client there."""
    user = await shop.member("boss", "admin")
    added = await shop.add("--cluster-role", "view", user=user)
    rotated = await shop.run("client", "rotate-secret", "web", user=user)
    removed = await shop.run("client", "remove", "web", "--yes", user=user)

    assert (added.code, rotated.code, removed.code) == (0, 0, 0), added.stderr + rotated.stderr + removed.stderr


async def test_missing_right_is_named_with_the_line_to_ask_for(shop: Shop) -> None:
    """Who may not bind roles learns which right is missing, and the command that gives it works."""
    user = await shop.member("intern", "view")
    refused = await shop.add("--cluster-role", "view", user=user)
    remedy = refused.stderr.rsplit("let you: ", 1)[1].strip()
    await shop.cluster.kubectl(*shlex.split(remedy)[1:])
    again = await shop.add("--cluster-role", "view", user=user)

    assert refused.code == 1
    assert f"you may not create RoleBindings in namespace {shop.namespace} (Kubernetes says:" in refused.stderr
    assert again.code == 0, again.stderr


async def test_rights_that_one_does_not_hold_cannot_be_given(shop: Shop) -> None:
    """Kubernetes' own escalation rule judges the user, and the refusal says so; nothing is left behind."""
    user = await shop.member("boss", "admin")
    before = await shop.names()
    ended = await shop.add("--rule", "get csistoragecapacities.storage.k8s.io", user=user)

    assert ended.code == 1
    assert "only rights that you hold yourself" in ended.stderr
    assert await shop.names() == before


async def test_unknown_cluster_role_is_refused(shop: Shop) -> None:
    """A mistyped ClusterRole is noticed, though Kubernetes would bind it for a cluster admin."""
    ended = await shop.add("--cluster-role", "veiw")

    assert ended.code == 1
    assert "no ClusterRole 'veiw'" in ended.stderr
    assert await shop.names() == set()


async def test_secret_is_replaced_in_two_steps(shop: Shop, tmp_path: Path) -> None:
    """First both secrets count, then only the new one; a third is refused unless the oldest is given up."""
    first = (await shop.add()).stdout.strip()
    file = tmp_path / "secret"
    added = await shop.run("client", "rotate-secret", "web", "--secret-file", str(file))
    both = await _digests(shop)
    third = await shop.run("client", "rotate-secret", "web")
    finished = await shop.run("client", "rotate-secret", "web", "--finish")

    assert added.code == 0, added.stderr
    assert "--finish" in added.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert both == [_digest(first), _digest(file.read_text())]
    assert third.code == 1
    assert "--drop-oldest" in third.stderr
    assert finished.code == 0
    assert await _digests(shop) == both[1:]
    assert (await shop.run("client", "rotate-secret", "web", "--finish")).code == 1


async def test_oldest_secret_is_dropped_on_request(shop: Shop) -> None:
    """A leaked secret can be replaced even while another replacement is under way."""
    await shop.add()
    second = (await shop.run("client", "rotate-secret", "web")).stdout.strip()
    third = (await shop.run("client", "rotate-secret", "web", "--drop-oldest")).stdout.strip()

    assert await _digests(shop) == [_digest(second), _digest(third)]


async def test_concurrent_change_is_not_overwritten(shop: Shop) -> None:
    """A rotation that read an older version of the client is refused instead of undoing what came after."""
    await shop.add()
    async with connect(Access(str(shop.cluster.kubeconfig), None)) as cluster:
        found = await find_client(cluster, shop.namespace, "web")
        await shop.run("client", "suspend", "web", "--wait", "0")

        with pytest.raises(CommandError, match="somebody changed the TokenClient web at the same time"):
            await cluster.replace(found, PLACE, with_new_secret(found, _digest("new"), drop_oldest=False))


async def test_status_written_meanwhile_does_not_stop_a_replacement(shop: Shop) -> None:
    """The broker writes the status whenever it likes: that is no change of somebody else's."""
    await shop.add()
    async with connect(Access(str(shop.cluster.kubeconfig), None)) as cluster:
        found = await find_client(cluster, shop.namespace, "web")
        status = '{"status": {"observedGeneration": 77}}'
        where = ("tokenclient", "web", "-n", shop.namespace)
        await shop.cluster.kubectl("patch", *where, "--subresource=status", "--type=merge", "-p", status)
        wanted = with_new_secret(found, _digest("new"), drop_oldest=False)
        changed = await cluster.replace(found, PLACE, wanted)

    assert changed["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]
    assert changed["spec"]["authentication"] == wanted


def _digest(text: str) -> str:
    return secret.format_digest(secret.digest(text))


async def _digests(shop: Shop) -> list[str]:
    _, client = await shop.get("TokenClient", "web")
    found: list[str] = client["spec"]["authentication"][0]["clientSecret"]["digests"]
    return found


async def test_suspend_and_resume_touch_nothing_else(shop: Shop) -> None:
    """Suspending sets one field; resuming takes it away again."""
    await shop.add()
    _, before = await shop.get("TokenClient", "web")
    await shop.run("client", "suspend", "web", "--wait", "0")
    _, suspended = await shop.get("TokenClient", "web")
    await shop.run("client", "resume", "web", "--wait", "0")
    _, after = await shop.get("TokenClient", "web")

    assert suspended["spec"] == {**before["spec"], "suspend": True}
    assert after["spec"] == before["spec"]


async def test_remove_leaves_foreign_objects(shop: Shop) -> None:
    """Only what carries our label for this client goes; other clients and the account stay."""
    await shop.add("--cluster-role", "view")
    await shop.add(name="other")
    others = {name for name in await shop.names() if name.endswith("other")}
    ended = await shop.run("client", "remove", "web", "--yes")

    assert ended.code == 0, ended.stderr
    assert await shop.names() == others
    assert (await shop.get("ServiceAccount", "web"))[0] == 200
    assert (await shop.run("client", "remove", "web", "--yes")).code == 1


async def test_remove_asks_first(shop: Shop) -> None:
    """Without a yes nothing is deleted, and what would be is shown."""
    await shop.add()
    before = await shop.names()
    ended = await shop.run("client", "remove", "web", stdin="n\n")

    assert ended.code == 1
    assert f"TokenClient {shop.namespace}/web" in ended.stderr
    assert await shop.names() == before


async def test_list_and_show_tell_how_clients_are(shop: Shop, broker: BrokerProcess) -> None:
    """People get a table and a description, programs the objects."""
    assert broker.url
    await shop.add("--owner", "team")
    await until(lambda: _listed_as(shop, "Ready"), what="the broker reports the client")
    listed = await shop.run("client", "list")
    shown = await shop.run("client", "show", "web")
    as_json = await shop.run("client", "show", "web", "-o", "json")
    missing = await shop.run("client", "show", "nobody")

    header, line = listed.stdout.splitlines()
    assert header.split()[:4] == ["NAMESPACE", "NAME", "READY", "REASON"]
    assert line.split()[:5] == [shop.namespace, "web", "True", "Ready", "default"]
    assert "Owner:      team" in shown.stdout
    assert "Ready: True (Ready, for" in shown.stdout
    assert json.loads(as_json.stdout)["metadata"]["name"] == "web"
    assert missing.code == 1


async def test_other_proofs_are_shown_and_survive_a_new_secret(shop: Shop) -> None:
    """People see issuer, claims and values; rotate-secret adds a secret beside them and takes nothing away."""
    claims = ("--oidc-claim", "repository_id=1", "--oidc-claim", "environment=a", "--oidc-claim", "environment=b")
    made = await shop.add("--oidc-issuer", "https://issuer.example", *claims, "--certificate-dns", "ci.example")
    _, before = await shop.get("TokenClient", "web")
    shown = (await shop.run("client", "show", "web")).stdout
    rotated = [await shop.run("client", "rotate-secret", "web", *more) for more in ((), (), ("--finish",))]
    _, after = await shop.get("TokenClient", "web")

    assert (made.code, made.stdout) == (0, ""), made.stderr
    assert "Secrets:    none" in shown
    lines = ("a JWT of https://issuer.example for the broker", "  environment = a or b", "  repository_id = 1")
    assert "\n            ".join(lines) in shown
    assert "Proved by:  a certificate for ci.example" in shown
    assert [ended.code for ended in rotated] == [0, 0, 0]
    digests = [_digest(rotated[1].stdout.strip())]
    assert after["spec"]["authentication"] == [
        {"clientSecret": {"digests": digests}},
        *before["spec"]["authentication"],
    ]


async def test_a_calling_account_is_known_by_its_uid(shop: Shop) -> None:
    """The uid is looked up with the user's rights; an account that is not there is refused, and nothing is made."""
    _, account = await shop.get("ServiceAccount", "web")
    missing = await shop.add("--caller-account", f"{shop.namespace}/nobody")
    made_then = await shop.names()
    made = await shop.add("--caller-account", f"{shop.namespace}/web")
    _, client = await shop.get("TokenClient", "web")

    assert missing.code == 1
    assert "no service account 'nobody'" in missing.stderr
    assert made_then == set()
    assert made.code == 0, made.stderr
    caller = {"namespace": shop.namespace, "name": "web", "uid": account["metadata"]["uid"]}
    assert client["spec"]["authentication"] == [{"serviceAccount": caller}]


async def test_add_does_not_change_what_proves_a_client(shop: Shop) -> None:
    """The same command again changes nothing; one with another claim is refused, as with other rights."""
    issuer = ("--oidc-issuer", "https://issuer.example", "--oidc-claim")
    first = await shop.add(*issuer, "sub=a")
    again = await shop.add(*issuer, "sub=a")
    other = await shop.add(*issuer, "sub=b")

    assert (first.code, again.code, other.code) == (0, 0, 1)
    assert "with other content" in other.stderr


async def test_config_names_the_cluster_of_the_kubeconfig(shop: Shop) -> None:
    """The client is read with the user's rights; the API server is the kubeconfig's, or the one that is named."""
    await shop.add()
    ask = ("client", "config", "web", "--for", "prometheus", "--broker-url", "https://broker.example")
    told = [await shop.run(*ask, *more) for more in ((), ("--api-server", "https://k.example:6443/"))]
    refused = await shop.run("client", "config", "web", "--for", "github", "--broker-url", "https://broker.example")

    assert [ended.code for ended in told] == [0, 0], told[0].stderr
    places = [yaml.safe_load(ended.stdout)["scrape_configs"][0]["kubernetes_sd_configs"][0] for ended in told]
    assert [place["api_server"] for place in places] == [shop.cluster.server, "https://k.example:6443"]
    assert places[0]["oauth2"]["client_id"] == f"{shop.namespace}/web"
    assert (refused.code, refused.stdout) == (1, "")


async def test_a_client_may_be_named_by_its_whole_id(shop: Shop) -> None:
    """As callers of the broker write it; with a namespace beside it that is another one, it is clear to nobody."""
    await shop.add()
    whole = await command_with(shop.cluster.kubeconfig, "client", "show", f"{shop.namespace}/web", "-o", "json")
    twice = await shop.run("client", "show", f"{shop.namespace}/web", "-o", "json")
    other = await shop.run("client", "show", "other/web")

    shown = [json.loads(it.stdout)["metadata"] for it in (whole, twice)]
    assert shown[0]["namespace"] == shop.namespace
    assert shown[0]["uid"] == shown[1]["uid"], "a broker may have written its status meanwhile"
    assert (other.code, other.stdout) == (2, "")
    assert "leave one of the two out" in other.stderr


async def _listed_as(shop: Shop, reason: str) -> bool:
    return f" {reason} " in (await shop.run("client", "list")).stdout


async def test_printed_manifests_make_what_add_makes(shop: Shop, tmp_path: Path) -> None:
    """What goes to git applies with kubectl, and equals what the command itself makes."""
    arguments = ("--cluster-role", "view", "--rule", "get pods", "--vault", "--renew-before", "4h", "--create")
    file = tmp_path / "secret"
    printed = await shop.run(
        "client", "render", "ci", "--service-account", "ci", *arguments, "--secret-file", str(file)
    )
    await shop.cluster.apply(printed.stdout)
    again = await shop.run("client", "add", "ci", "--service-account", "ci", *arguments)

    assert file.read_text() not in printed.stdout
    assert _digest(file.read_text()) in printed.stdout
    assert again.code == 0, again.stderr
    assert "created:" not in again.stderr
    for manifest in yaml.safe_load_all(printed.stdout):
        _, found = await shop.get(manifest["kind"], manifest["metadata"]["name"])
        assert content(found) == content(manifest)


@pytest.mark.parametrize("name", ["null", "123", "1e3", "true", "0x1f", "y"])
async def test_names_that_look_like_other_things_stay_names(cluster: Cluster, name: str) -> None:
    """A namespace called null or 1e3 is read by kubectl from our YAML as what it is."""
    await cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": cluster.marks}})
    shop = Shop(cluster, name)
    printed = await shop.run("client", "render", name, "--service-account", name, "--create", "--vault", "--no-secret")
    await cluster.apply(printed.stdout)
    status, found = await shop.get("TokenClient", name)
    await cluster.request("DELETE", f"/api/v1/namespaces/{name}")

    assert printed.code == 0, printed.stderr
    assert status == 200
    assert found["spec"]["grants"][0]["serviceAccount"]["name"] == name


async def test_unknown_credentials_have_an_exit_code_of_their_own(shop: Shop) -> None:
    """A kubeconfig whose token is refused says so, and exits with 3."""
    ended = await shop.run("client", "list", user=shop.cluster.kubeconfig_for("nonsense"))

    assert ended.code == 3
    assert "log in again" in ended.stderr


async def test_kubeconfig_plugins_are_run(shop: Shop, tmp_path: Path) -> None:
    """A kubeconfig that logs in by an exec plugin works, with the context that is named."""
    token = await shop.cluster.token_for(shop.namespace, "web")
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
    (tmp_path / "credential.json").write_text(json.dumps(credential))
    config = yaml.safe_load(shop.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": credential["apiVersion"],
            "command": "cat",
            "args": [str(tmp_path / "credential.json")],
            "interactiveMode": "Never",
        }
    }
    config["contexts"][0]["name"] = "plugin"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    ended = await shop.run("client", "list", "--context", "plugin", user=tmp_path / "config")

    assert ended.code == 1
    assert f"system:serviceaccount:{shop.namespace}:web" in ended.stderr


async def test_client_namespace_manifests_equal_what_add_makes(shop: Shop, tmp_path: Path) -> None:
    """The overlay that deploy/client-namespace describes yields the Role and binding of client add."""
    overlay = _overlay(tmp_path / "overlay", shop.namespace)
    built = list(yaml.safe_load_all(await shop.cluster.kubectl("kustomize", str(overlay))))
    await shop.add()

    assert {it["kind"] for it in built} == {"Role", "RoleBinding"}
    for manifest in built:
        _, found = await shop.get(manifest["kind"], manifest["metadata"]["name"])
        assert content(found) == content(manifest)
        assert found["metadata"]["labels"] == manifest["metadata"]["labels"]


def _overlay(folder: Path, namespace: str) -> Path:
    """Write the example of the folder's own comment, for another namespace."""
    base = ROOT / "deploy" / "client-namespace"
    lines = (base / "kustomization.yaml").read_text().splitlines()
    example = "\n".join(line[4:] for line in lines if line.startswith("#   "))
    example = example.replace("../tokenbroker/deploy/client-namespace", os.path.relpath(base, folder))
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(example.replace("namespace: shop", f"namespace: {namespace}"))
    return folder
