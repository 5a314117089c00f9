"""All of deploy/ on a real API server, in namespaces that enforce the Pod Security Standard ``restricted``.

The pod is made from the Deployment's template: the API server judges pods, and a Deployment only makes them.
"""

import asyncio
import copy
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.config import ListenConfig
from broker.services.leadership import RELEASE_SECONDS
from tests.support.broker import ROOT
from tests.support.cluster import Cluster
from tests.support.crds import PROMETHEUS_RULES, SERVICE_MONITORS
from tests.support.tenant import BROKERS, SHOP

DEPLOY = ROOT / "deploy"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
OWN, TOGETHER = "broker-system", "broker-complete"
"""Namespaces that operators chose; in the second one they have all that there is."""

Pod = dict[str, Any]
Rendered = dict[str, list[dict[str, Any]]]
Facts = dict[tuple[object, ...], object]
"""Each value by its object (kind, namespace, name) and its place there."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Start a cluster for what is applied here, with the namespaces and the kinds that overlays expect to be there.

    As clusters usually do, it allows privileged containers, so that only the namespace's standard refuses one.
    """
    async with Cluster.start(own=True, flags=["--allow-privileged=true"]) as running:
        for schemas in (SERVICE_MONITORS, PROMETHEUS_RULES):
            file = await asyncio.to_thread(schemas.file)
            await running.kubectl("apply", "--server-side", "-f", str(file))
        await running.kubectl("wait", "--for=condition=Established", "crd", "--all")
        for namespace in (SHOP, BROKERS):
            await running.kubectl("create", "namespace", namespace)
            await running.kubectl("label", "namespace", namespace, RESTRICTED)
        yield running


def available(folder: Path, component: str = "components/high-availability") -> Path:
    """Return an operator's overlay: the example in another namespace, with a component where its comment has one."""
    return adapted(folder, OWN, f"components: [../../{component}]")


def adapted(folder: Path, namespace: str, components: str) -> Path:
    """Return the example in another namespace; ``components`` is what becomes of the comment, as for :func:`re.sub`."""
    shutil.copytree(DEPLOY, folder / "deploy")
    overlay = folder / "deploy" / "overlays" / "example"
    text = (overlay / "kustomization.yaml").read_text()
    text, found = re.subn(r"(?m)^# (components: .*)$", components, text)
    assert found == 1
    (overlay / "kustomization.yaml").write_text(text.replace("namespace: tokenbroker\n", f"namespace: {namespace}\n"))
    return overlay


def complete(folder: Path) -> Path:
    """Return all that one cluster has, in one folder: every component, Vault's reviewer, and an owner's client."""
    deploy = adapted(folder, TOGETHER, r"\1").parents[1]
    (deploy / "owner").mkdir()
    _kustomization(deploy / "owner", namespace=SHOP, nameSuffix="-web", resources=["../client-namespace"])
    resources = ["overlays/example", "vault/reviewer.yaml", "owner"]
    _kustomization(deploy, resources=resources, sortOptions={"order": "fifo"})
    return deploy


def _kustomization(folder: Path, **said: Any) -> None:
    header = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(header | said))


async def rendered(cluster: Cluster, folder: Path) -> Rendered:
    """Return what a folder applies, by kind."""
    return by_kind(yaml.safe_load_all(await cluster.kubectl("kustomize", str(folder))))


def by_kind(objects: Iterable[dict[str, Any]]) -> Rendered:
    """Return objects by their kind."""
    found: Rendered = {}
    for one in objects:
        found.setdefault(one["kind"], []).append(one)
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def replicas(cluster: Cluster, tmp_path: Path) -> Rendered:
    """Return what an operator applies who wants several replicas."""
    return await rendered(cluster, available(tmp_path))


APPLIED = {
    "base": "tokenbroker",
    "overlays/example": "tokenbroker",
    "overlays/tenant": BROKERS,
    "overlays/tenant-policies": None,
    "client-namespace": None,
    "components/high-availability": OWN,
    "components/monitoring": OWN,
}
"""Each folder, and the namespace in which it runs the broker."""


KINDS = {
    "Namespace",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Deployment",
    "Service",
    "PriorityClass",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "ServiceMonitor",
    "PrometheusRule",
}
"""What there is at least, of base and of each component."""


def test_nothing_of_deploy_is_left_out() -> None:
    """A folder that is new is applied here, too; transformers are no objects, and parts of an overlay go with it."""
    folders = {str(one.parent.relative_to(DEPLOY)) for one in DEPLOY.rglob("kustomization.yaml")}
    parts = {"overlays/tenant/broker", "overlays/tenant/clients", "transformers/account"}

    assert folders - parts == set(APPLIED)


@pytest.mark.parametrize("folder", APPLIED)
async def test_all_is_applied_and_its_pod_is_admitted(cluster: Cluster, folder: str, tmp_path: Path) -> None:
    """Each object as it is, and once more as at an update; and the pod where ``restricted`` is enforced."""
    namespace = APPLIED[folder]
    component = folder.startswith("components/")
    path = available(tmp_path, folder) if component else DEPLOY / folder
    target = ("-n", SHOP) if folder == "client-namespace" else ()
    await cluster.kubectl("apply", "-k", str(path), *target)
    await cluster.kubectl("apply", "-k", str(path), *target)

    if namespace is not None:
        _, found = await cluster.request("GET", f"/api/v1/namespaces/{namespace}")
        assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert (await create(cluster, await template(cluster, path)))[0] == 201


async def test_all_that_a_cluster_has_is_applied_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """Each object is there with all that it was made with, and the pod is admitted with what all components give it."""
    path = complete(tmp_path)
    for _ in range(2):
        await cluster.kubectl("apply", "-k", str(path))
    made = await rendered(cluster, path)
    there = by_kind(yaml.safe_load(await cluster.kubectl("get", "-k", str(path), "-o", "yaml"))["items"])
    status, pod = await create(cluster, await template(cluster, path))

    assert made.keys() >= KINDS
    assert missing(facts(made), facts(there)) == []
    assert deployment(there)["spec"]["replicas"] == 3
    assert (status, pod["metadata"]["namespace"]) == (201, TOGETHER)
    assert [pod["spec"]["priority"]] == [one["value"] for one in there["PriorityClass"]]
    [config] = [one["configMap"]["name"] for one in pod["spec"]["volumes"] if one["name"] == "config"]
    assert config in [one["metadata"]["name"] for one in there["ConfigMap"]]


async def test_no_component_undoes_what_another_does(cluster: Cluster, tmp_path: Path) -> None:
    """What each makes of the example by itself, all of them make of it together, and nothing else."""
    folders = [folder for folder in APPLIED if folder.startswith("components/")]
    without = facts(await rendered(cluster, adapted(tmp_path / "without", OWN, "")))
    together = facts(await rendered(cluster, adapted(tmp_path / "together", OWN, r"\1")))
    alone = [facts(await rendered(cluster, available(tmp_path / folder, folder))) for folder in folders]
    changes = [{place: one[place] for place in one if without.get(place) != one[place]} for one in alone]

    assert all(changes)
    assert [missing(change, together) for change in changes] == [[] for _ in folders]
    assert together.keys() == without.keys() | set().union(*changes)


async def test_vaults_reviewer_is_applied(cluster: Cluster) -> None:
    """What Vault's admins apply, beside their own: its account may review tokens."""
    await cluster.kubectl("apply", "-f", str(DEPLOY / "vault" / "reviewer.yaml"))
    token = await cluster.token_for("vault", "vault-reviewer")
    review = {"spec": {"token": token}}
    status, _ = await cluster.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review, token=token)

    assert status == 201


def _privileged(pod: Pod) -> None:
    context = pod["spec"]["containers"][0]["securityContext"]
    context["privileged"] = context["allowPrivilegeEscalation"] = True  # one without the other is no valid pod


def _escalates(pod: Pod) -> None:
    del pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"]


def _keeps_capabilities(pod: Pod) -> None:
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]


def _may_be_root(pod: Pod) -> None:
    del pod["spec"]["securityContext"]["runAsNonRoot"]


def _unconfined(pod: Pod) -> None:
    del pod["spec"]["securityContext"]["seccompProfile"]


def _mounts_the_host(pod: Pod) -> None:
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})


@pytest.mark.parametrize(
    "weaken", [_privileged, _escalates, _keeps_capabilities, _may_be_root, _unconfined, _mounts_the_host]
)
async def test_a_pod_that_is_any_weaker_is_refused(cluster: Cluster, weaken: Callable[[Pod], None]) -> None:
    """So it is known that the standard is enforced, and that the template needs each of its lines."""
    await cluster.kubectl("apply", "-k", str(DEPLOY / "base"))
    pod = copy.deepcopy(await template(cluster, DEPLOY / "base"))
    weaken(pod)

    status, answer = await create(cluster, pod)

    assert status == 403
    assert 'violates PodSecurity "restricted' in answer["message"]


async def test_a_container_has_its_measure(replicas: Rendered) -> None:
    """Requests and a limit of memory, an image of one version, and a file system that nobody writes to."""
    for container in deployment(replicas)["spec"]["template"]["spec"]["containers"]:
        resources, (_, _, tag) = container["resources"], container["image"].rpartition(":")
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert "memory" in resources["limits"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", tag)
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


async def test_a_stop_has_the_time_that_it_takes(replicas: Rendered) -> None:
    """The kubelet kills no broker that is still answering, or has the Lease to give back."""
    listen = ListenConfig()
    takes = listen.shutdown_delay_seconds + listen.drain_seconds + 1 + RELEASE_SECONDS

    assert deployment(replicas)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > takes + 5


async def test_not_ready_does_not_mean_dead(replicas: Rendered) -> None:
    """The probe that kills asks only whether the process answers, and bears a minute of silence."""
    [container] = deployment(replicas)["spec"]["template"]["spec"]["containers"]
    ready, live = container["readinessProbe"], container["livenessProbe"]

    assert (ready["httpGet"]["path"], live["httpGet"]["path"]) == ("/readyz", "/livez")
    assert live["periodSeconds"] * live["failureThreshold"] >= 60
    assert "startupProbe" not in container


async def test_replicas_are_never_all_gone(replicas: Rendered) -> None:
    """Neither by an update, nor by drains, nor by the loss of a node; each rule is about these pods."""
    [budget] = replicas["PodDisruptionBudget"]
    spec = deployment(replicas)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    spread = {one["topologyKey"]: one for one in spec["template"]["spec"]["topologySpreadConstraints"]}

    assert spec["replicas"] - budget["spec"]["maxUnavailable"] >= 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spread["kubernetes.io/hostname"]["whenUnsatisfiable"] == "DoNotSchedule"
    assert spread.keys() == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    for selector in [budget["spec"]["selector"], *(one["labelSelector"] for one in spread.values())]:
        assert selector["matchLabels"].items() <= labels.items()


async def test_the_network_lets_in_callers_and_prometheus_alone(replicas: Rendered) -> None:
    """The ports are those of the container; the second one is not for everybody."""
    [policy] = replicas["NetworkPolicy"]
    template = deployment(replicas)["spec"]["template"]
    ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    rules = {rule["ports"][0]["port"]: rule for rule in policy["spec"]["ingress"]}

    assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert rules.keys() == ports == {"api", "ops"}
    assert rules["ops"]["from"]


async def test_all_of_the_component_is_in_the_brokers_namespace(replicas: Rendered) -> None:
    """Whichever the operator chose: a rule in another one would hold nothing."""
    kinds = ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")

    assert {one["metadata"]["namespace"] for kind in kinds for one in replicas[kind]} == {OWN}


def facts(documents: Rendered) -> Facts:
    """Return what stands in some objects, but for a namespace that kustomize writes into policies, which have none."""
    found: Facts = {}
    for kind, objects in documents.items():
        for one in objects:
            metadata = dict(one["metadata"])
            if kind.startswith("ValidatingAdmissionPolicy"):
                metadata.pop("namespace", None)
            found |= dict(_values(one | {"metadata": metadata}, kind, metadata.get("namespace"), metadata["name"]))
    return found


def _values(value: object, *place: object) -> Iterator[tuple[tuple[object, ...], object]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(inner, *place, key)
    else:
        yield place, value


def missing(wanted: Facts, there: Facts) -> list[tuple[object, ...]]:
    """Return where something else stands, or nothing; the API server leaves out what is false, zero or empty."""
    return [place for place, value in wanted.items() if (there[place] != value if place in there else value)]


def deployment(documents: Rendered) -> dict[str, Any]:
    """Return the only one."""
    [found] = documents["Deployment"]
    return found


async def template(cluster: Cluster, folder: Path) -> Pod:
    """Return a pod as the Deployment of a folder would make it."""
    found = deployment(await rendered(cluster, folder))
    metadata = found["spec"]["template"]["metadata"] | {
        "namespace": found["metadata"]["namespace"],
        "generateName": "tokenbroker-",
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": found["spec"]["template"]["spec"]}


async def create(cluster: Cluster, pod: Pod) -> tuple[int, dict[str, Any]]:
    """Make a pod, and take it away again."""
    pods = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
    status, answer = await cluster.request("POST", f"{pods}?fieldValidation=Strict", pod)
    if status == 201:
        await cluster.request("DELETE", f"{pods}/{answer['metadata']['name']}?gracePeriodSeconds=0")
    return status, answer
