"""``tokenbroker doctor`` in a cluster without the broker, in which whatever the API server itself does is changed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
import yaml

from tests.support.broker import ROOT, token_client
from tests.support.cluster import Cluster
from tests.support.doctor import bound_token, doctor
from tests.support.installed_cluster import RBAC
from tests.support.processes import until

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD = f"{CRDS}/tokenclients.tokenbroker.dev"
SHIPPED = yaml.safe_load((ROOT / "deploy" / "base" / "crd.yaml").read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bare() -> AsyncIterator[Cluster]:
    """Start a cluster in which nothing is installed."""
    async with Cluster.start(own=True) as cluster:
        yield cluster


async def _condition(cluster: Cluster, name: str, status: str) -> None:
    """Wait until the API server says something of the CustomResourceDefinition."""

    async def said() -> bool:
        _, crd = await cluster.request("GET", CRD)
        return {"type": name, "status": status}.items() <= _conditions(crd).get(name, {}).items()

    await until(said, what=f"{name} is {status}")


def _conditions(crd: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {it["type"]: it for it in crd.get("status", {}).get("conditions") or ()}


async def _gone(cluster: Cluster, path: str) -> None:
    async def away() -> bool:
        return (await cluster.request("GET", path))[0] == 404

    await until(away, what=f"{path} is gone")


async def test_a_crd_that_is_not_there(bare: Cluster) -> None:
    """Then the cluster knows no TokenClients, and who has a right to them cannot be asked."""
    told = await doctor(bare, "--install")

    assert {"crd.schema", "policy.tokenbroker-tokens", "policy.tokenbroker-anchors"} <= told.problems
    assert "kubectl apply -f deploy/base/crd.yaml" in told.text("crd.schema")
    assert "the policy is missing" in told.text("policy.tokenbroker-clients")
    assert "was refused by something else" in told.text("policy.tokenbroker-secrets.tried")
    assert told.state("rights.missing") == "cannot tell"
    assert told.state("certificate.cluster-ca") == "cannot tell"
    assert told.state("certificate.broker") == "cannot tell"


async def test_a_crd_whose_names_are_taken(bare: Cluster) -> None:
    """The API server does not serve it then, and says whose names they are; without the other one it does."""
    other = json.loads(json.dumps(SHIPPED))
    other["metadata"]["name"] = "imitations.tokenbroker.dev"
    other["spec"]["names"] = {"plural": "imitations", "singular": "imitation", "kind": "TokenClient"}
    await bare.apply(json.dumps(other))
    await bare.kubectl("wait", "--for=condition=Established", "crd/imitations.tokenbroker.dev")
    await bare.apply(json.dumps(SHIPPED))
    await _condition(bare, "NamesAccepted", "False")
    told = await doctor(bare, "--install")
    await bare.request("DELETE", f"{CRDS}/imitations.tokenbroker.dev")
    await _condition(bare, "Established", "True")
    mended = await doctor(bare, "--install")
    await bare.request("DELETE", CRD)
    await _gone(bare, CRD)

    assert "the API server does not serve it" in told.text("crd.schema")
    assert "already in use" in told.text("crd.schema")
    assert "kubectl get crd" in told.text("crd.schema")
    assert mended.state("crd.schema") == "ok"


async def test_a_crd_that_is_being_deleted(bare: Cluster) -> None:
    """A client that nobody lets go of holds it, and the API server takes no new ones."""
    await bare.apply(json.dumps(SHIPPED))
    await _condition(bare, "Established", "True")
    clients = "/apis/tokenbroker.dev/v1alpha1/namespaces/default/tokenclients"
    client = token_client("default", "held", grants=[{"serviceAccount": {"name": "x"}, "vault": {}}])
    client["metadata"]["finalizers"] = ["example.com/held"]
    status, answer = await bare.request("POST", clients, client)
    await bare.request("DELETE", CRD)
    await _condition(bare, "Terminating", "True")
    told = await doctor(bare, "--install")
    await bare.request("PATCH", f"{clients}/held", {"metadata": {"finalizers": None}})
    await _gone(bare, CRD)

    assert status == 201, answer
    assert "is being deleted, and all TokenClients with it" in told.text("crd.schema")
    assert "kubectl get tokenclients -A" in told.text("crd.schema")


async def test_a_version_that_is_not_served(bare: Cluster) -> None:
    """The place is named."""
    unserved = json.loads(json.dumps(SHIPPED))
    unserved["spec"]["versions"][0]["served"] = False
    await bare.apply(json.dumps(unserved))
    await _condition(bare, "Established", "True")
    told = await doctor(bare, "--install")
    await bare.request("DELETE", CRD)
    await _gone(bare, CRD)

    assert "crd.schema" in told.problems
    assert "versions[0].served" in told.text("crd.schema")
    assert told.state("rights.missing") == "cannot tell"


async def test_issuer_and_keys_that_may_not_be_read(bare: Cluster) -> None:
    """Where accounts may not discover the issuer, name and keys cannot be told; the token is accepted all the same."""
    await bare.request("DELETE", f"{RBAC}/clusterrolebindings/system:service-account-issuer-discovery")
    token = await bound_token(bare, "default", "web", "anchor")

    async def unseen() -> bool:
        return (await bare.request("GET", "/openid/v1/jwks", token=token))[0] == 403

    await until(unseen, what="the API server shows its keys to no account")
    told = await doctor(bare, "--token-file", "-", stdin=token, user=bare.kubeconfig_for(token))

    assert told.problems == set()
    assert "you may not read which issuer this cluster is" in told.text("token.issuer")
    assert told.state("token.signature") == "cannot tell"
    assert told.state("token.accepted") == "ok"
