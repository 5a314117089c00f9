"""A kubeconfig with ``as``: the rights that count are those of whoever is named, as with kubectl."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.cli.cluster import Access, connect
from broker.model.sensitive import Sensitive
from tests.support.broker import Tenant
from tests.support.command import command_with
from tests.support.doctor import doctor

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


def acting_as(tenant: Tenant, folder: Path, **names: Any) -> Path:
    """Return the kubeconfig of a cluster admin who acts in somebody else's name."""
    config = yaml.safe_load(tenant.cluster.kubeconfig.read_text())
    config["users"][0]["user"] |= names
    file = folder / "config"
    file.write_text(yaml.safe_dump(config))
    return file


async def test_the_api_server_sees_all_that_the_kubeconfig_says(tenant: Tenant, tmp_path: Path) -> None:
    """Name, uid, all groups and all values of an extra; and with a token of its own, nothing of that."""
    names: dict[str, Any] = {
        "as": "alice",
        "as-uid": "7",
        "as-groups": ["web", "ops"],
        "as-user-extra": {"example.com/teams": ["a", "b"]},
    }
    await tenant.account("own")
    own = Sensitive(await tenant.cluster.token_for(tenant.namespace, "own"))
    async with connect(Access(str(acting_as(tenant, tmp_path, **names)), None)) as cluster:
        seen = (await cluster.ask("POST", REVIEWS, REVIEW)).document["status"]["userInfo"]
        async with cluster.bearer(own) as as_itself:
            itself = (await as_itself.ask("POST", REVIEWS, REVIEW)).document["status"]["userInfo"]

    assert (seen["username"], seen["uid"]) == ("alice", "7")
    assert set(seen["groups"]) == {"web", "ops", "system:authenticated"}
    assert seen["extra"] == {"example.com/teams": ["a", "b"]}
    assert itself["username"] == f"system:serviceaccount:{tenant.namespace}:own"
    assert "example.com/teams" not in itself["extra"]


@pytest.mark.parametrize(("group", "code"), [("viewers", 0), ("strangers", 1)])
async def test_rights_are_those_of_the_name(tenant: Tenant, tmp_path: Path, group: str, code: int) -> None:
    """An admin's kubeconfig that names a group with the right to list is served, and one without is refused."""
    role = {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "Group", "name": "viewers", "apiGroup": "rbac.authorization.k8s.io"}
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{tenant.namespace}/rolebindings"
    await tenant.cluster.request("POST", bindings, {"metadata": {"name": "v"}, "roleRef": role, "subjects": [subject]})
    kubeconfig = acting_as(tenant, tmp_path, **{"as": "alice", "as-groups": ["others", group]})
    listed = await command_with(kubeconfig, "client", "list", "-n", tenant.namespace)
    made = await command_with(
        kubeconfig, "client", "add", "web", "-n", tenant.namespace, "--service-account", "web", "--create"
    )

    assert listed.code == code, listed.stderr
    assert (made.code, made.stdout) == (1, "")
    assert "alice" in made.stderr


async def test_the_doctor_tries_nothing_in_a_third_name(tenant: Tenant, tmp_path: Path) -> None:
    """Somebody who acts as somebody else cannot be the broker as well: that is no finding about the policies."""
    user = acting_as(tenant, tmp_path, **{"as": "alice", "as-groups": ["system:masters"]})
    told = await doctor(tenant.cluster, "--install", user=user)

    tried = [it for it in told.findings if it["id"].endswith(".tried")]
    assert [it["state"] for it in tried] == ["cannot tell", "cannot tell"]
    assert all("may not impersonate" in it["text"] for it in tried)
