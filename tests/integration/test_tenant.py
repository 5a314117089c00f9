"""deploy/overlays/tenant, applied by somebody who is admin of two namespaces and nothing else."""

import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from broker.identity import secret
from tests.support.broker import ROOT, BrokerProcess, Registered
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.processes import ProcessGroup, free_port, until
from tests.support.registries import DirectorySource

SHOP, BROKERS = "shop", "shop-tokenbroker"
OVERLAY = Path("overlays") / "tenant"
URL = "http://127.0.0.1:9"
CORE = f"/api/v1/namespaces/{SHOP}"
NOBODYS = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Shop:
    """The tenant's two namespaces, his copy of deploy, and his broker."""

    cluster: Cluster
    kubectl: Kubectl
    deploy: Path
    clients: DirectorySource
    broker: BrokerProcess
    reporter: Registered

    async def apply(self, document: Any) -> None:
        """Write the client's file (None: take it away), apply it as the tenant, and mount it as the kubelet does."""
        folder = self.deploy / OVERLAY / "broker"
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        kustomization["configMapGenerator"][1]["files"] = ["reporter.yaml"] if document else []
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        (folder / "reporter.yaml").write_text(yaml.safe_dump(document))
        await apply(self.kubectl, self.deploy)
        await mount(self.kubectl, self.clients)

    async def serves(self, status: int, code: str | None = None) -> None:
        """Wait until the broker answers the client with a status and code."""

        async def answers() -> bool:
            reply = await self.broker.call("POST", "/v1/tokens", {}, auth=self.reporter.auth)
            return (reply.status, reply.body.get("code")) == (status, code)

        await until(answers, what=f"the broker answers {status} {code}", programs=(self.broker.program,))

    async def logs(self, words: str) -> None:
        """Wait until the broker's log has some words."""

        async def said() -> bool:
            return words in self.broker.program.log.read_text()

        await until(said, what=f"the log has {words}", programs=(self.broker.program,))


async def apply(kubectl: Kubectl, deploy: Path) -> None:
    """Apply the overlay as its README says."""
    await kubectl("apply", "-k", str(deploy / OVERLAY))


async def mount(kubectl: Kubectl, clients: DirectorySource) -> None:
    """Do what the kubelet does with the ConfigMap of clients."""
    found = yaml.safe_load(await kubectl("get", "configmap", "tokenbroker-clients", "-n", BROKERS, "-o", "yaml"))
    await clients.swap(found.get("data") or {})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """Run a cluster that never heard of the broker, with two namespaces for the tenant."""
    async with Cluster.start(own=True) as running:
        for namespace in (SHOP, BROKERS):
            await running.kubectl("create", "namespace", namespace)
        await running.kubectl("create", "serviceaccount", "tenant", "-n", SHOP)
        for namespace in (SHOP, BROKERS):
            binding = ("create", "rolebinding", "tenant", "--clusterrole=admin", f"--serviceaccount={SHOP}:tenant")
            await running.kubectl(*binding, "-n", namespace)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kubectl(cluster: Cluster) -> Kubectl:
    """Return kubectl as the tenant."""
    return cluster.kubectl.with_kubeconfig(cluster.kubeconfig_for(await cluster.token_for(SHOP, "tenant")))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(cluster: Cluster, kubectl: Kubectl) -> AsyncIterator[Shop]:
    """Apply the overlay with a client of our own, and run the broker as the Deployment would."""
    async with ProcessGroup.start() as group:
        deploy, clients = group.folder / "deploy", DirectorySource(group.folder / "clients")
        shutil.copytree(ROOT / "deploy", deploy)
        made = secret.generate()
        file = deploy / OVERLAY / "broker" / "reporter.yaml"
        file.write_text(file.read_text().replace(NOBODYS, secret.format_digest(secret.digest(made.reveal()))))
        await apply(kubectl, deploy)
        await mount(kubectl, clients)
        config = await configuration(kubectl, cluster, group.folder) | {"registry": {"directory": str(clients.folder)}}
        path = group.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        program = group.program("broker", [sys.executable, "-m", "broker", "serve", "--config", str(path)])
        broker = BrokerProcess(program, config, group.folder)
        program.start()
        await broker.ready()
        try:
            yield Shop(cluster, kubectl, deploy, clients, broker, Registered(f"{SHOP}/reporter", made.reveal()))
        finally:
            await program.stop()


async def configuration(kubectl: Kubectl, cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Return what the overlay configures, with what a process outside a pod needs instead of a pod's own."""
    listed = yaml.safe_load(await kubectl("get", "configmaps", "-n", BROKERS, "-o", "yaml"))["items"]
    [text] = [found["data"]["config.yaml"] for found in listed if "config.yaml" in found.get("data", {})]
    config: dict[str, Any] = yaml.safe_load(text)
    token = folder / "token"
    token.write_text((await kubectl("create", "token", "tokenbroker", "-n", BROKERS)).strip())
    config["cluster"] |= {"server": cluster.server, "ca_file": str(cluster.ca_file)}
    config["kubernetes"] = {"server": cluster.server, "ca_file": str(cluster.ca_file), "token_file": str(token)}
    config["listen"] = {"port": free_port(), "public_url": URL}
    config["ops"] = {"port": free_port()}
    config["audit"] = {"file": str(folder / "audit.jsonl")}
    return config


def client(shop: Shop) -> dict[str, Any]:
    """Return the client's file as the overlay has it, with its own secret."""
    digest = secret.format_digest(secret.digest(shop.reporter.secret))
    document: dict[str, Any] = yaml.safe_load(
        (ROOT / "deploy" / OVERLAY / "broker" / "reporter.yaml").read_text().replace(NOBODYS, digest)
    )
    return document


async def token_of(shop: Shop) -> str:
    """Return a token of the client, once the broker is ready for it."""
    await shop.serves(200)
    reply = await shop.broker.call("POST", "/v1/tokens", {}, auth=shop.reporter.auth)
    return str(reply.body["token"])


async def until_refused(shop: Shop, token: str) -> None:
    """Wait until the API server refuses a token."""

    async def refused() -> bool:
        return (await shop.cluster.request("GET", f"{CORE}/pods", token=token))[0] == 401

    await until(refused, what="the token is refused")


async def test_everything_is_in_one_of_two_namespaces(shop: Shop) -> None:
    """The tenant may apply nothing else, and need not; what is configured is mounted."""
    text = await shop.kubectl("kustomize", str(ROOT / "deploy" / OVERLAY))
    rendered = list(yaml.safe_load_all(text))
    [pod] = [one["spec"]["template"]["spec"] for one in rendered if one["kind"] == "Deployment"]
    [config] = [one["data"]["config.yaml"] for one in rendered if "config.yaml" in one.get("data", {})]
    mounted = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}

    assert {one["metadata"]["namespace"] for one in rendered} == {SHOP, BROKERS}
    assert mounted["clients"] == yaml.safe_load(config)["registry"]["directory"]
    assert volumes["clients"]["configMap"] == {"name": "tokenbroker-clients"}


async def test_the_tenant_has_no_rights_in_the_cluster(shop: Shop) -> None:
    """So what works below needs none."""
    for arguments in (["create", "clusterroles"], ["create", "customresourcedefinitions"], ["list", "namespaces"]):
        with pytest.raises(KubectlError):
            await shop.kubectl("auth", "can-i", *arguments, "--quiet")
    with pytest.raises(KubectlError, match="doesn't have a resource type"):
        await shop.kubectl("get", "tokenclients", "-n", SHOP)


async def test_a_token_is_got_and_used_and_ends_with_its_client(shop: Shop) -> None:
    """The whole way: the file is taken out of the ConfigMap, and the API server refuses the token soon after."""
    token = await token_of(shop)
    used, _ = await shop.cluster.request("GET", f"{CORE}/pods", token=token)
    secrets, _ = await shop.cluster.request("GET", f"{CORE}/secrets", token=token)
    await shop.apply(None)
    await shop.serves(401, "invalid_client")
    await until_refused(shop, token)

    assert (used, secrets) == (200, 403)

    async def nothing_left() -> bool:
        _, left = await shop.cluster.request("GET", f"{CORE}/secrets?fieldSelector=type%3Dtokenbroker.dev/anchor")
        return not left["items"]

    await until(nothing_left, what="no anchor is left")
    await shop.apply(client(shop))
    assert (await shop.cluster.request("GET", f"{CORE}/pods", token=await token_of(shop)))[0] == 200
    await until_refused(shop, token)


async def test_a_token_ends_with_its_account(shop: Shop) -> None:
    """The account owns the anchor, so the garbage collector sees to it, broker or not."""
    await shop.apply(client(shop))
    await token_of(shop)
    _, listed = await shop.cluster.request("GET", f"{CORE}/secrets?fieldSelector=type%3Dtokenbroker.dev/anchor")
    _, account = await shop.cluster.request("GET", f"{CORE}/serviceaccounts/reporter")

    kinds = {anchor["metadata"]["labels"]["tokenbroker.dev/anchor"] for anchor in listed["items"]}
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "reporter", "uid": account["metadata"]["uid"]}
    assert kinds == {"grant", "trial"}
    assert [anchor["metadata"]["ownerReferences"] for anchor in listed["items"]] == [[owner], [owner]]


async def test_a_broken_file_serves_nobody_and_a_suspended_client_is_told_so(shop: Shop) -> None:
    """As with TokenClients; the metrics and the log say what their status would."""
    await shop.apply(client(shop))
    await shop.serves(200)
    await shop.clients.swap({"reporter.yaml": "{"})
    await shop.serves(401, "invalid_client")
    await shop.logs('"why":"InvalidSpec"')
    await shop.apply(client(shop) | {"spec": client(shop)["spec"] | {"suspend": True}})
    await shop.serves(403, "client_suspended")
    await shop.logs('"why":"Suspended"')
    await shop.apply(client(shop))
    await shop.broker.until_ready(shop.reporter.id)

    log = shop.broker.program.log.read_text()
    assert "registry.file_broken" in log
    assert "event.lost" not in log


async def test_what_takes_rights_in_the_cluster_is_refused_in_words(shop: Shop) -> None:
    """Without TokenReview no ServiceAccount proves anything, and no token is looked into; nothing else suffers."""
    _, account = await shop.cluster.request("GET", f"{CORE}/serviceaccounts/tenant")
    proof = {"namespace": SHOP, "name": "tenant", "uid": account["metadata"]["uid"]}
    changed = client(shop)
    changed["spec"]["authentication"].append({"serviceAccount": proof})
    await shop.apply(changed)
    token = await token_of(shop)
    bearer = await shop.cluster.token_for(SHOP, "tenant", audiences=[URL])
    proved = await shop.broker.call(
        "POST", "/v1/tokens", {"client": shop.reporter.id}, headers={"Authorization": f"Bearer {bearer}"}
    )
    form = f"token={token}".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    looked = await shop.broker.call("POST", "/oauth2/introspect", data=form, headers=headers, auth=shop.reporter.auth)

    assert (proved.status, proved.body["code"]) == (503, "broker_not_authorized")
    assert (looked.status, looked.body["code"]) == (503, "broker_not_authorized")
    await shop.serves(200)
    assert "takes a right in the whole cluster" in shop.broker.program.log.read_text()


async def test_without_policies_the_brokers_credential_makes_any_secret(shop: Shop) -> None:
    """What this cannot promise (docs/registry.md): a thief gets a token of an account there that never ends."""
    stolen = (await shop.kubectl("create", "token", "tokenbroker", "-n", BROKERS)).strip()
    legacy = {"name": "forged", "annotations": {"kubernetes.io/service-account.name": "reporter"}}
    body = {"type": "kubernetes.io/service-account-token", "metadata": legacy}

    assert (await shop.cluster.request("POST", f"{CORE}/secrets", body, token=stolen))[0] == 201
    assert (await shop.cluster.request("GET", f"{CORE}/secrets/forged", token=stolen))[0] == 403
    assert (await shop.cluster.request("GET", f"{CORE}/serviceaccounts/tenant", token=stolen))[0] == 403
    assert (await shop.cluster.request("GET", f"/api/v1/namespaces/{BROKERS}/secrets", token=stolen))[0] == 403
