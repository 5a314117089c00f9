"""deploy/overlays/tenant, applied by somebody who is admin of two namespaces and nothing else."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml

from tests.support.broker import ROOT
from tests.support.cluster import Cluster
from tests.support.kubectl import KubectlError
from tests.support.processes import until
from tests.support.tenant import BROKERS, CORE, OVERLAY, SHOP, URL, Shop, admitted


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop() -> AsyncIterator[Shop]:
    """Run the tenant's broker on a cluster that never heard of one."""
    async with Cluster.start(own=True) as cluster, Shop.open(cluster, await admitted(cluster)) as running:
        yield running


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
    token = await shop.token()
    used, _ = await shop.cluster.request("GET", f"{CORE}/pods", token=token)
    secrets, _ = await shop.cluster.request("GET", f"{CORE}/secrets", token=token)
    await shop.apply(None)
    await shop.serves(401, "invalid_client")
    await shop.until_refused(token)

    assert (used, secrets) == (200, 403)

    async def nothing_left() -> bool:
        _, left = await shop.cluster.request("GET", f"{CORE}/secrets?fieldSelector=type%3Dtokenbroker.dev/anchor")
        return not left["items"]

    await until(nothing_left, what="no anchor is left")
    await shop.apply(shop.client())
    assert (await shop.cluster.request("GET", f"{CORE}/pods", token=await shop.token()))[0] == 200
    await shop.until_refused(token)


async def test_a_token_ends_with_its_account(shop: Shop) -> None:
    """The account owns the anchor, so the garbage collector sees to it, broker or not."""
    await shop.apply(shop.client())
    await shop.token()
    _, listed = await shop.cluster.request("GET", f"{CORE}/secrets?fieldSelector=type%3Dtokenbroker.dev/anchor")
    _, account = await shop.cluster.request("GET", f"{CORE}/serviceaccounts/reporter")

    kinds = {anchor["metadata"]["labels"]["tokenbroker.dev/anchor"] for anchor in listed["items"]}
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "reporter", "uid": account["metadata"]["uid"]}
    assert kinds == {"grant", "trial"}
    assert [anchor["metadata"]["ownerReferences"] for anchor in listed["items"]] == [[owner], [owner]]


async def test_a_broken_file_serves_nobody_and_a_suspended_client_is_told_so(shop: Shop) -> None:
    """As with TokenClients; the metrics and the log say what their status would."""
    await shop.apply(shop.client())
    await shop.serves(200)
    await shop.clients.swap({"reporter.yaml": "{"})
    await shop.serves(401, "invalid_client")
    await shop.logs('"why":"InvalidSpec"')
    await shop.apply(shop.client() | {"spec": shop.client()["spec"] | {"suspend": True}})
    await shop.serves(403, "client_suspended")
    await shop.logs('"why":"Suspended"')
    await shop.apply(shop.client())
    await shop.broker.until_ready(shop.reporter.id)

    log = shop.broker.program.log.read_text()
    assert "registry.file_broken" in log
    assert "event.lost" not in log


async def test_what_takes_rights_in_the_cluster_is_refused_in_words(shop: Shop) -> None:
    """Without TokenReview no ServiceAccount proves anything, and no token is looked into; nothing else suffers."""
    _, account = await shop.cluster.request("GET", f"{CORE}/serviceaccounts/tenant")
    proof = {"namespace": SHOP, "name": "tenant", "uid": account["metadata"]["uid"]}
    changed = shop.client()
    changed["spec"]["authentication"].append({"serviceAccount": proof})
    await shop.apply(changed)
    token = await shop.token()
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
