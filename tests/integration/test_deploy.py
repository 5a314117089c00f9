"""What deploy/ applies."""

import json
from typing import Any

import pytest
import yaml

from broker.config import LeaseConfig, load
from tests.support.bad_specs import BAD, GOOD, PROOFS
from tests.support.broker import ROOT, Tenant, token_client
from tests.support.lab import Lab


async def test_the_example_overlay_renders(installed: Lab) -> None:
    """The overlay that users copy builds, and its Deployment mounts the generated configuration."""
    rendered = await installed.cluster.kubectl("kustomize", str(ROOT / "deploy" / "overlays" / "example"))

    documents = list(yaml.safe_load_all(rendered))
    [config] = [one for one in documents if one["kind"] == "ConfigMap"]
    [deployment] = [one for one in documents if one["kind"] == "Deployment"]
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in volumes
    assert set(config["data"]) == {"config.yaml", "cluster-ca.crt"}


@pytest.mark.parametrize("overlay", ["example", "tenant"])
async def test_overlays_change_no_name_that_a_role_is_limited_to(installed: Lab, overlay: str) -> None:
    """Kustomize takes names in a Role for those of generated objects that are called alike."""
    documents = yaml.safe_load_all(
        await installed.cluster.kubectl("kustomize", str(ROOT / "deploy" / "overlays" / overlay))
    )
    roles = {one["metadata"]["name"]: one["rules"] for one in documents if one["kind"] == "Role"}

    names = [rule["resourceNames"] for rule in roles["tokenbroker-lease"] if "resourceNames" in rule]
    assert names == [[LeaseConfig().name]]
    assert ("tokenbroker-canary" in roles) is (overlay == "example")


@pytest.mark.parametrize("folder", ["base", "overlays/example", "overlays/tenant-policies"])
async def test_policies_are_made_before_what_they_hold(folder: str, installed: Lab) -> None:
    """Between the first object and the last no TokenClient can be made, and the broker has no right, unwatched."""
    rendered = await installed.cluster.kubectl("kustomize", str(ROOT / "deploy" / folder))

    kinds = [document["kind"] for document in yaml.safe_load_all(rendered)]
    policies = [index for index, kind in enumerate(kinds) if kind.startswith("ValidatingAdmissionPolicy")]
    assert len(policies) == 2 * len(list((ROOT / "deploy" / "base" / "policies").iterdir()))
    assert max(policies) < min(index for index, kind in enumerate(kinds) if kind in HELD)


HELD = {"CustomResourceDefinition", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}


@pytest.mark.parametrize("policy", ["tokens", "secrets", "clients", "registration", "anchors"])
def test_a_policy_fails_closed(policy: str) -> None:
    """What cannot be judged is refused, and a refusal is more than a warning."""
    text = (ROOT / "deploy" / "base" / "policies" / f"{policy}.yaml").read_text()
    [made, binding] = yaml.safe_load_all(text)

    assert made["metadata"]["name"] == binding["metadata"]["name"] == f"tokenbroker-{policy}"
    assert made["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"] == {"policyName": f"tokenbroker-{policy}", "validationActions": ["Deny"]}


async def test_no_policy_knows_the_account_by_another_name(installed: Lab) -> None:
    """A name that the overlay's transformer forgot would open that policy."""
    rendered = await installed.cluster.kubectl("kustomize", str(ROOT / "tests" / "deploy" / "elsewhere"))

    policies = [one for one in yaml.safe_load_all(rendered) if one["kind"] == "ValidatingAdmissionPolicy"]
    words = " ".join(json.dumps(policy["spec"]) for policy in policies)
    assert words.count("'system:serviceaccount:elsewhere:minter:'") == len(policies) - 1
    assert words.count("'elsewhere'") == 1  # where nothing is registered
    assert "tokenbroker:tokenbroker" not in words
    assert "'tokenbroker'" not in words


async def test_example_applies_as_it_is(installed: Lab) -> None:
    """The API server takes all of what users copy, its policies included."""
    shown = await installed.cluster.kubectl(
        "apply", "--dry-run=server", "-k", str(ROOT / "deploy" / "overlays" / "example")
    )

    assert "validatingadmissionpolicy.admissionregistration.k8s.io/tokenbroker-tokens" in shown


def test_no_configuration_is_given_by_base() -> None:
    """Name, endpoint and CA of the cluster are the operator's to say, so base has no default for them."""
    with pytest.raises(Exception, match="cluster: Field required"):
        load(ROOT / "deploy" / "base" / "kustomization.yaml")


VALID = {"grants": [{"serviceAccount": {"name": "reader"}, "vault": {}}]}


@pytest.mark.parametrize(
    ("grant", "message"),
    [
        ({"serviceAccount": {"name": "default"}}, "never granted"),
        ({"serviceAccount": {"name": ".."}}, "should match"),
        ({"serviceAccount": {"name": "%2e%2e"}}, "should match"),
        ({"name": "a/b"}, "should match"),
        ({"ttl": {"default": "9m"}}, "shortest TTL is 10m"),
        ({"ttl": {"max": "25h"}}, "longest TTL is 24h"),
        ({"ttl": {"default": "2h"}}, "must not be above the maximum"),
        ({"ttl": {"default": ""}}, "shortest TTL is 10m"),
        ({"ttl": {"default": "soon"}}, "should match"),
        ({"vault": {"ttl": "5m"}}, "ttl is from 10m to 24h"),
        ({"vault": {"ttl": "1h", "renewBefore": "1h"}}, "renewBefore must be shorter"),
        ({"audiences": ["a b"]}, "should match"),
    ],
)
async def test_the_schema_refuses_a_grant(tenant: Tenant, grant: dict[str, object], message: str) -> None:
    """What a TokenClient may not say is refused by the API server itself, in words."""
    body = token_client(tenant.namespace, "x", grants=[VALID["grants"][0] | grant])

    status, answer = await tenant.cluster.request("POST", tenant.path, body)

    assert status == 422
    assert message in answer["message"]


@pytest.mark.parametrize("spec", BAD.values(), ids=BAD.keys())
async def test_the_schema_refuses_what_the_broker_would(tenant: Tenant, spec: dict[str, object]) -> None:
    """Both judge alike, so that what applies also works."""
    status, answer = await tenant.cluster.request(
        "POST", f"{tenant.path}?dryRun=All", token_client(tenant.namespace, "x", **spec)
    )

    assert status == 422, answer


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS.keys())
async def test_the_schema_takes_what_the_broker_takes(tenant: Tenant, proof: dict[str, Any]) -> None:
    """The specification that the bad ones are made from is good, with each kind of proof."""
    spec = GOOD | {"authentication": [proof]}
    query = f"{tenant.path}?dryRun=All&fieldValidation=Strict"
    status, answer = await tenant.cluster.request("POST", query, token_client(tenant.namespace, "x", **spec))

    assert status == 201, answer


@pytest.mark.parametrize("name", ["null", "123", "1e3", "true"])
async def test_odd_names_are_served_as_names(tenant: Tenant, name: str) -> None:
    """Names that YAML would take for something else register like any other."""
    status, made = await tenant.cluster.request("POST", tenant.path, token_client(tenant.namespace, name, **VALID))

    assert (status, made["metadata"]["name"]) == (201, name)
    assert made["spec"]["grants"][0]["name"] == "default"
    assert made["spec"]["grants"][0]["ttl"] == {"default": "15m", "max": "1h"}


@pytest.mark.parametrize("name", ["..", "a/b", "%2e%2e", "a.b"])
async def test_names_that_are_no_dns_label_are_refused(tenant: Tenant, name: str) -> None:
    """A client's name becomes part of paths and labels, so it is a DNS label."""
    status, _ = await tenant.cluster.request("POST", tenant.path, token_client(tenant.namespace, name, **VALID))

    assert status == 422


async def test_a_client_that_nobody_could_use_is_refused(tenant: Tenant) -> None:
    """Without authentication a grant has to be kept in Vault."""
    body = token_client(tenant.namespace, "x", grants=[{"serviceAccount": {"name": "reader"}}])

    status, answer = await tenant.cluster.request("POST", tenant.path, body)

    assert status == 422
    assert "nobody can use it" in answer["message"]
