"""Registration on a real API server: rules, strong accounts, rights on the whole cluster, opting in, checking files."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.integration.test_cli import Shop, cluster, shop  # fixtures
from tests.support.command import command_with
from tests.support.processes import until

__all__ = ["cluster", "shop"]

RBAC = "/apis/rbac.authorization.k8s.io/v1"
STRICT = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules:
      - {{apiGroups: [tokenbroker.dev], apiVersions: ["*"], resources: [tokenclients], operations: [CREATE, UPDATE]}}
  matchConditions: [{{name: here, expression: "request.namespace == '{namespace}'"}}]
  validations: [{{expression: "false", message: you may not mint for web}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec: {{policyName: {name}, validationActions: [Deny]}}
"""


async def wide(shop: Shop) -> list[str]:
    """Return the objects on the whole cluster that are labelled as the namespace's."""
    found = []
    for plural in ("clusterroles", "clusterrolebindings"):
        _, listed = await shop.cluster.request(
            "GET", f"{RBAC}/{plural}?labelSelector=tokenbroker.dev/namespace={shop.namespace}"
        )
        found += [f"{plural} {it['metadata']['name']}" for it in listed["items"]]
    return found


async def label(shop: Shop) -> str | None:
    """Return whether the namespace is opted in."""
    _, found = await shop.cluster.request("GET", f"/api/v1/namespaces/{shop.namespace}")
    value: str | None = found["metadata"]["labels"].get("tokenbroker.dev/clients")
    return value


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--rule", "get deployments"), 2, "write deployments.apps."),
        (("--rule", "list pods/log"), 2, "'list' cannot be done to pods/log, only: get."),
        (("--rule", "get nodes"), 2, "use --cluster-wide-rule"),
        (("--expect-deny", "get podz"), 2, "the nearest: pods"),
        (("--rule", "create pods"), 1, "would be strong"),
        (("--cluster-role", "edit"), 1, "it may get,list,watch secrets, which reads Secrets"),
        (("--cluster-wide-role", "nothing"), 1, "no ClusterRole 'nothing'"),
        (("--cluster-role", "view", "--expect-deny", "list pods"), 1, "deny 'list pods' does not hold: the rule"),
    ],
)
async def test_what_would_not_work_is_refused_before_anything_is_made(
    shop: Shop, options: tuple[str, ...], code: int, words: str
) -> None:
    """By what the cluster itself serves and its roles say."""
    ended = await shop.add(*options)

    assert (ended.code, ended.stdout) == (code, "")
    assert words in ended.stderr
    assert await shop.names() == set()


async def test_a_strong_account_that_is_meant_is_made_with_warnings(shop: Shop) -> None:
    """They say what it can do."""
    ended = await shop.add("--rule", "* deployments.apps", "--allow-strong")

    assert ended.code == 0, ended.stderr
    assert "warning: rule '* deployments.apps': '*' also allows" in ended.stderr
    assert "warning: the account web is strong: it may create,update,patch deployments.apps" in ended.stderr


async def test_rights_on_the_whole_cluster_come_and_go_with_the_client(shop: Shop) -> None:
    """They work, URLs among them, belong to the client by their labels, and are taken away with it."""
    options = ("--cluster-wide-role", "tokenbroker-prometheus", "--cluster-wide-rule", "get namespaces,/logs/*")
    made = [await shop.add(*options) for _ in range(2)]
    objects = await wide(shop)
    who = f"--as=system:serviceaccount:{shop.namespace}:web"
    asked = [("get", "/metrics"), ("get", "/logs/x"), ("list", "nodes"), ("get", "namespaces/default")]
    answers = [(await shop.cluster.kubectl("auth", "can-i", *action, who)).strip() for action in asked]
    removed = await shop.run("client", "remove", "web", "--yes")

    name = f"tokenbroker-access.{shop.namespace}.web"
    assert [ended.code for ended in made] == [0, 0], made[1].stderr
    assert objects == [
        f"clusterroles {name}",
        f"clusterrolebindings {name}",
        f"clusterrolebindings {name}.tokenbroker-prometheus",
    ]
    assert answers == ["yes"] * 4
    assert removed.code == 0, removed.stderr
    assert f"deleted: ClusterRole {name}\n" in removed.stderr
    assert await wide(shop) == []


async def test_an_admin_of_the_namespace_is_told_what_he_cannot_see(shop: Shop) -> None:
    """Removing a client works; a line for a cluster admin deletes what may be left in the whole cluster."""
    user = await shop.member("boss", "admin")
    await shop.add("--cluster-wide-rule", "get nodes")
    removed = await shop.run("client", "remove", "web", "--yes", user=user)
    line = removed.stderr.partition("a cluster admin deletes them: kubectl ")[2].partition("\n")[0]
    await shop.cluster.kubectl(*line.split())

    assert removed.code == 0, removed.stderr
    assert await wide(shop) == []


async def test_an_admin_of_the_namespace_gives_no_rights_on_the_whole_cluster(shop: Shop) -> None:
    """The API server refuses, and nothing is left behind."""
    user = await shop.member("boss", "admin")
    before = await shop.names()
    ended = await shop.add("--cluster-wide-role", "view", user=user)

    assert ended.code == 1
    assert "you may not create ClusterRoleBindings in the whole cluster" in ended.stderr
    assert await shop.names() == before


@pytest_asyncio.fixture(loop_scope="session")
async def closed(shop: Shop) -> Shop:
    """Return a namespace where the broker may not mint."""
    labels = {"metadata": {"labels": {"tokenbroker.dev/clients": None}}}
    await shop.cluster.request("PATCH", f"/api/v1/namespaces/{shop.namespace}", labels)
    return shop


async def test_the_namespace_is_opted_in_on_request(closed: Shop) -> None:
    """Without it the missing label is told with the line to run; with the label nothing is said."""
    shop = closed
    plain = await shop.add()
    before = await label(shop)
    opted = await shop.add("--opt-in")
    again = await shop.add("--opt-in")

    line = f"kubectl label namespace {shop.namespace} tokenbroker.dev/clients=enabled"
    assert plain.code == 0
    assert f"add --opt-in, or ask a cluster admin to run: {line}" in plain.stderr
    assert before is None
    assert f"opted in: Namespace {shop.namespace}" in opted.stderr
    assert await label(shop) == "enabled"
    assert "opted in" not in again.stderr
    assert "warning" not in again.stderr


async def test_tokens_that_nothing_ends_need_a_label_of_their_own(shop: Shop) -> None:
    """Which a registration does not set: its absence is told, with the line to run."""
    told = [await shop.add("--revocation", "None")]
    line = f"kubectl label namespace {shop.namespace} tokenbroker.dev/unbound-tokens=allowed"
    await shop.cluster.kubectl(*line.split()[1:])
    told.append(await shop.add("--revocation", "None"))
    _, client = await shop.get("TokenClient", "web")

    assert [ended.code for ended in told] == [0, 0], told[0].stderr
    assert f"ask a cluster admin to run: {line}" in told[0].stderr
    assert "ask a cluster admin" not in told[1].stderr
    assert client["spec"]["grants"][0]["revocation"] == "None"


async def test_who_may_not_opt_in_learns_whom_to_ask(closed: Shop) -> None:
    """Before anything is made; without --opt-in the client is made all the same."""
    shop = closed
    user = await shop.member("boss", "admin")
    before = await shop.names()
    refused = await shop.add("--opt-in", user=user)
    left = await shop.names()
    made = await shop.add(user=user)

    assert refused.code == 1
    assert "ask a cluster admin for: kubectl label namespace" in refused.stderr
    assert left == before
    assert made.code == 0, made.stderr


async def test_a_namespace_that_cannot_be_seen_is_told(shop: Shop) -> None:
    """Who may write a client and cannot read namespaces learns the line, and that it may not be needed."""
    rules: dict[str, Any] = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    await shop.post("ServiceAccount", {"metadata": {"name": "most"}})
    await shop.cluster.request("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "most"}, "rules": [rules]})
    every = ("rolebindings", "roles", "serviceaccounts", "serviceaccounts/token", "secrets", "tokenclients", "pods")
    role = {"metadata": {"name": "most"}, "rules": [rules | {"resources": list(every)}]}
    await shop.post("Role", role)
    subject = {"kind": "ServiceAccount", "name": "most", "namespace": shop.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "most"}
    await shop.post("RoleBinding", {"metadata": {"name": "most"}, "roleRef": reference, "subjects": [subject]})
    user = shop.cluster.kubeconfig_for(await shop.cluster.token_for(shop.namespace, "most"))
    ended = await shop.add("--cluster-role", "view", user=user)
    await shop.cluster.request("DELETE", f"{RBAC}/clusterroles/most")

    assert "warning: you may not see whether the broker may mint in the namespace" in ended.stderr
    assert "warning: you may not read the ClusterRole 'view', so what it allows was not looked at." in ended.stderr


async def test_a_policy_that_refuses_the_client_is_told(shop: Shop) -> None:
    """With the policy's own words, and what was made before is undone."""
    name = f"strict-{shop.namespace}"
    await shop.cluster.apply(STRICT.format(name=name, namespace=shop.namespace))
    await until(lambda: _denied(shop), what="the policy is in force")
    ended = await shop.add()
    await shop.cluster.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)

    assert ended.code == 1
    assert f"the cluster's policy {name} refuses the TokenClient web: you may not mint for web" in ended.stderr
    assert await shop.names() == set()


async def test_who_may_not_mint_for_an_account_may_not_register_it(shop: Shop) -> None:
    """The policy's refusal says which right is missing, and the line that it names gives it."""
    rules: list[dict[str, Any]] = [
        {"apiGroups": ["tokenbroker.dev"], "resources": ["tokenclients"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["serviceaccounts", "namespaces"], "verbs": ["get"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["*"]},
    ]
    await shop.post("Role", {"metadata": {"name": "registrar"}, "rules": rules})
    await shop.post("ServiceAccount", {"metadata": {"name": "registrar"}})
    who = f"{shop.namespace}:registrar"
    where = ("-n", shop.namespace, f"--serviceaccount={who}")
    await shop.cluster.kubectl("create", "rolebinding", "registrar", "--role=registrar", *where)
    user = shop.cluster.kubeconfig_for(await shop.cluster.token_for(shop.namespace, "registrar"))
    before = await shop.names()
    refused = await shop.add(user=user)
    left = await shop.names()
    line = refused.stderr.partition("for that right: kubectl ")[2].replace("<your user name>", "USER")
    await shop.cluster.kubectl(*line.replace("USER", f"system:serviceaccount:{who}").split())
    made = await shop.add(user=user)

    assert refused.code == 1
    assert "refuses the TokenClient web: grants[0]: you may not create tokens of the account web. " in refused.stderr
    assert left == before
    assert made.code == 0, made.stderr


async def _denied(shop: Shop) -> bool:
    """Tell whether a TokenClient that is as good as any is refused."""
    spec = {"grants": [{"serviceAccount": {"name": "web"}, "vault": {}}]}
    body = {"apiVersion": "tokenbroker.dev/v1alpha1", "kind": "TokenClient", "metadata": {"name": "x"}, "spec": spec}
    path = f"/apis/tokenbroker.dev/v1alpha1/namespaces/{shop.namespace}/tokenclients?dryRun=All"
    status, _ = await shop.cluster.request("POST", path, body)
    return status == 422


async def test_rules_lists_what_the_cluster_has(shop: Shop) -> None:
    """A resource by kubectl's word, a group, a part of a name; people get a table, programs all there is."""

    async def rules(*arguments: str) -> tuple[int, str, str]:
        ended = await command_with(shop.cluster.kubeconfig, "rules", *arguments)
        return ended.code, ended.stdout, ended.stderr

    _, deploy, _ = await rules("deploy")
    _, everything, _ = await rules()
    _, group, _ = await rules("tokenbroker.dev", "-o", "json")
    _, part, _ = await rules("subjectrules", "-o", "yaml")
    code, _, wrong = await rules("podz")

    header, first, *rest = [line.split() for line in deploy.splitlines()]
    assert header[:2] == ["RULE", "NAME"]
    assert first[:2] == ["deployments.apps", "yes"]
    assert first[-2:] == ["deploy", "Deployment"]
    assert rest == [
        ["deployments.apps/scale", "yes", "get,patch,update"],
        ["deployments.apps/status", "yes", "get,patch,update"],
    ]
    assert "roles.rbac.authorization.k8s.io" in everything
    assert [it["rule"] for it in json.loads(group)] == ["tokenclients.tokenbroker.dev"]
    assert json.loads(group)[0]["subresources"] == {"status": ["get", "patch", "update"]}
    assert [it["resource"] for it in yaml.safe_load(part)] == ["selfsubjectrulesreviews"]
    assert (code, wrong) == (1, "error: the cluster has no resource 'podz'; the nearest: pods.\n")


async def test_rendered_manifests_pass_the_check_and_a_broken_one_does_not(closed: Shop, tmp_path: Path) -> None:
    """What `client render` prints is right but for what the cluster lacks; the API server has its say on a dry run."""
    shop = closed
    rendered = await shop.run(
        "client", "render", "ci", "--service-account", "web", "--rule", "get pods", "--no-secret", "--vault"
    )
    file = tmp_path / "ci.yaml"
    file.write_text(rendered.stdout)
    fresh = await shop.run("check", "-f", str(file))
    broken = rendered.stdout.replace("- pods", "- podz").replace("vault:", "vault:\n      renewBefore: 13h")
    file.write_text(broken)
    wrong = await shop.run("check", "-f", str(file))

    assert fresh.code == 0, fresh.stdout
    assert fresh.stdout == (
        f"{file}: warning: TokenClient {shop.namespace}/ci: the namespace {shop.namespace} does not let the broker "
        f"mint; have a cluster admin run kubectl label namespace {shop.namespace} tokenbroker.dev/clients=enabled\n"
    )
    assert wrong.code == 1
    assert "no resource 'podz' in the core group; the nearest: pods" in wrong.stdout
    assert "on a dry run, the API server refuses to patch the TokenClient ci" in wrong.stdout
    assert await shop.names() == set()


async def test_objects_of_the_cluster_count_in_a_check(shop: Shop, tmp_path: Path) -> None:
    """A client whose rights are applied already is complete; one without them is not."""
    await shop.add("--cluster-role", "view")
    _, found = await shop.get("TokenClient", "web")
    parts = {"apiVersion": "tokenbroker.dev/v1alpha1", "kind": "TokenClient", "spec": found["spec"]}
    (tmp_path / "web.yaml").write_text(yaml.safe_dump(parts | {"metadata": {"name": "web"}}))
    there = await shop.run("check", "-f", str(tmp_path))
    spec = yaml.safe_load(yaml.safe_dump(found["spec"]))
    spec["grants"][0]["serviceAccount"]["name"] = "nobody"
    (tmp_path / "web.yaml").write_text(yaml.safe_dump(parts | {"spec": spec, "metadata": {"name": "other"}}))
    missing = await shop.run("check", "-f", str(tmp_path), "-o", "json")

    assert there.code == 0, there.stdout
    assert missing.code == 1
    whats = [it["what"] for it in json.loads(missing.stdout)]
    assert any("is not in these files nor in the cluster" in what for what in whats)
    assert any("may not create serviceaccounts/nobody --subresource=token" in what for what in whats)


async def test_who_may_see_little_is_not_told_that_things_are_missing(shop: Shop, tmp_path: Path) -> None:
    """A pipeline without rights gets warnings for what it could not look up."""
    user = await shop.member("ci", "tokenbroker-tokenclients-view")
    rendered = await shop.run("client", "render", "ci", "--service-account", "web", "--no-secret", "--vault")
    documents = [it for it in yaml.safe_load_all(rendered.stdout) if it["kind"] == "TokenClient"]
    (tmp_path / "ci.yaml").write_text(yaml.safe_dump_all(documents))
    ended = await shop.run("check", "-f", str(tmp_path), user=user)

    lines = ended.stdout.splitlines()
    assert ended.code == 0, ended.stdout
    assert all(": warning: " in line for line in lines)
    assert any("you may not patch TokenClients" in line for line in lines)
