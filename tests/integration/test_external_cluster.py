"""KUBECONFIG_FOR_TESTS: a cluster that somebody else runs, which is left as it was but for the release."""

import pytest

from tests.support.broker import ACCOUNT, Tenant
from tests.support.cluster import EXTERNAL, Cluster
from tests.support.installed import install


async def test_somebody_elses_cluster_is_left_without_what_tests_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two may use it at once, and each takes away what is its own, with clients that no broker lets go of."""
    async with Cluster.start(own=True) as theirs:
        await install(theirs)
        monkeypatch.setenv(EXTERNAL, str(theirs.kubeconfig))
        async with Cluster.start() as outer:
            kept = await Tenant.create(outer, "kept")
            async with Cluster.start() as inner:
                tenant = await Tenant.create(inner, "held")
                await tenant.client("web", {"serviceAccount": {"name": "web"}})
                finalizers = {"metadata": {"finalizers": ["tokenbroker.dev/anchors"]}}
                assert (await inner.request("PATCH", f"{tenant.path}/web", finalizers))[0] == 200
            assert (await outer.request("GET", "/api/v1/namespaces/held"))[0] == 404
            assert (await outer.request("GET", f"/api/v1/namespaces/{kept.namespace}"))[0] == 200
        _, left = await theirs.request("GET", "/api/v1/namespaces")
        _, bindings = await theirs.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings")

    names = {it["metadata"]["name"] for it in left["items"]}
    assert names == {"default", "kube-system", "kube-public", "kube-node-lease", ACCOUNT[0]}
    assert [it for it in bindings["items"] if "tokenbroker-tests" in it["metadata"]["name"]] == []
