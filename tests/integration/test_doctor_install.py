"""``tokenbroker doctor --install`` in a cluster and with a Vault of its own, which are harmed on purpose."""

import copy
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from cryptography import x509

from broker.cli.doctor import command as doctor_command
from broker.cli.doctor.certificates import ending
from broker.cli.doctor.policies import POLICIES
from tests.support.broker import ACCOUNT, BrokerProcess, Tenant
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.doctor import Told, bound_token, doctor
from tests.support.installed import install
from tests.support.installed_cluster import RBAC, account, bind
from tests.support.lab import Lab
from tests.support.openbao import configure_for_broker
from tests.support.processes import free_port, until

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tokenclients.tokenbroker.dev"
LEASE = "tokenbroker-leader"
CONFIG_MAP = "/api/v1/namespaces/tokenbroker/configmaps/tokenbroker"


@dataclass(frozen=True, slots=True)
class World:
    """A cluster with the release's manifests, a Vault, and a broker that serves TLS."""

    lab: Lab
    broker: BrokerProcess
    ca_file: Path

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self.lab.cluster

    async def ask(self, *more: str, user: Path | None = None, vault_token: str | None = None) -> Told:
        """Ask everything, with Vault and the broker's URL from its configuration."""
        return await doctor(
            self.cluster,
            "--install",
            "--ca-file",
            str(self.ca_file),
            *more,
            user=user,
            vault=self.lab.vault,
            vault_token=vault_token,
        )

    @asynccontextmanager
    async def changed(self, path: str, change: Any) -> AsyncIterator[None]:
        """Change an object, and make it what it was."""
        _, before = await self.cluster.request("GET", path)
        after = copy.deepcopy(before)
        change(after)
        await self._put(path, after)
        try:
            yield
        finally:
            await self._put(path, before)

    @asynccontextmanager
    async def without(self, path: str) -> AsyncIterator[None]:
        """Delete an object, and make it again."""
        _, before = await self.cluster.request("GET", path)
        await self.cluster.request("DELETE", path)
        try:
            yield
        finally:
            await self._put(path, before)

    async def in_force(self) -> None:
        """Wait until policies that were away refuse again."""

        async def refusing() -> bool:
            told = await doctor(self.cluster, "--install")
            return all(
                told.state(f"policy.{name}.tried") == "ok" for name in ("tokenbroker-secrets", "tokenbroker-tokens")
            )

        await until(refusing, what="the policies are in force again")

    async def _put(self, path: str, wanted: dict[str, Any]) -> None:
        wanted = copy.deepcopy(wanted)
        for key in ("resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"):
            wanted["metadata"].pop(key, None)
        wanted.pop("status", None)
        status, now = await self.cluster.request("GET", path)
        if status == 404:
            status, answer = await self.cluster.request("POST", path.rpartition("/")[0], wanted)
        else:
            wanted["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"]
            status, answer = await self.cluster.request("PUT", path, wanted)
        assert status in {200, 201}, answer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world() -> AsyncIterator[World]:
    """Start all of it, with the configuration in the ConfigMap that the Deployment names."""
    async with Lab.start() as lab:
        await install(lab.cluster)
        folder = lab.folder / "tls"
        folder.mkdir()
        authority = Authority.create(folder, "broker-ca")
        files = authority.server("tokenbroker")
        listen: dict[str, Any] = {"port": free_port()}
        listen["tls"] = {"cert_file": str(files.certificate), "key_file": str(files.key)}
        async with BrokerProcess.start(lab, listen=listen, lease={"name": LEASE}) as broker:
            # What tests give a broker for a Lease of its own, it has by the release for this one.
            await lab.cluster.request("DELETE", f"{RBAC}/namespaces/tokenbroker/rolebindings/{LEASE}")
            config = {
                "cluster": {"server": lab.cluster.server, "ca_file": "/etc/tokenbroker/cluster-ca.crt"},
                "listen": {"public_url": broker.url},
            }
            data = {"config.yaml": yaml.safe_dump(config), "cluster-ca.crt": lab.cluster.ca_file.read_text()}
            await lab.cluster.request(
                "POST", CONFIG_MAP.rpartition("/")[0], {"metadata": {"name": "tokenbroker"}, "data": data}
            )
            yield World(lab, broker, authority.file)


async def test_an_installation_that_is_well(world: World) -> None:
    """Only the cluster's audit policy cannot be seen, and the rules to add are told."""
    told = await world.ask()
    without_options = await doctor(world.cluster)

    assert told.problems == set()
    assert told.code == 0
    assert {it["id"] for it in told.findings if it["state"] == "cannot tell"} == {"audit.policy"}
    rules = yaml.safe_load(told.one("audit.policy")["mend"])
    assert rules[0]["level"] == "Metadata"
    assert [it["resources"] for it in rules[0]["resources"]] == [["serviceaccounts/token"], ["tokenreviews"]]
    assert {"certificate.broker", "certificate.api-server", "clock.broker", "clock.vault", "clock.api-server"} <= {
        it["id"] for it in told.findings
    }
    assert "maximumSeconds: 86400" in told.text("policy.tokenbroker-tokens")
    assert without_options.state("vault.reachable") == "cannot tell"
    assert without_options.problems == {"certificate.broker"}, "the system's CAs do not know the test's"


async def test_a_crd_that_is_not_there() -> None:
    """Then the cluster knows no TokenClients, and who has a right to them cannot be asked."""
    async with Cluster.start() as empty:
        told = await doctor(empty, "--install")

    assert {"crd.schema", "policy.tokenbroker-tokens", "policy.tokenbroker-anchors"} <= told.problems
    assert "kubectl apply -f deploy/base/crd.yaml" in told.text("crd.schema")
    assert "the policy is missing" in told.text("policy.tokenbroker-clients")
    assert told.state("rights.missing") == "cannot tell"
    assert told.state("certificate.cluster-ca") == "cannot tell"
    assert told.state("certificate.broker") == "cannot tell"


async def test_a_crd_of_another_release(world: World) -> None:
    """The places that differ are named."""

    def older(crd: dict[str, Any]) -> None:
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        del schema["owner"]

    async with world.changed(CRD, older):
        told = await world.ask()

    assert "crd.schema" in told.problems
    assert "openAPIV3Schema.properties.spec.properties.owner" in told.text("crd.schema")


@pytest.mark.parametrize("kind", ["validatingadmissionpolicies", "validatingadmissionpolicybindings"])
async def test_policies_or_bindings_that_are_missing(world: World, kind: str) -> None:
    """Each of the five, and its binding."""
    async with AsyncExitStack() as gone:
        for name in POLICIES:
            await gone.enter_async_context(world.without(f"{ADMISSION}/{kind}/{name}"))
        told = await world.ask()
    await world.in_force()

    what = "policy" if kind.endswith("policies") else "binding"
    for name in POLICIES:
        assert f"the {what} is missing" in told.text(f"policy.{name}")
        assert "kubectl apply -k" in told.text(f"policy.{name}")


def _ignoring(policy: dict[str, Any]) -> None:
    policy["spec"]["failurePolicy"] = "Ignore"


def _other_account(policy: dict[str, Any]) -> None:
    for it in policy["spec"]["matchConditions"]:
        it["expression"] = it["expression"].replace("tokenbroker:tokenbroker", "elsewhere:tokenbroker")


def _toothless(policy: dict[str, Any]) -> None:
    policy["spec"]["validations"][0]["expression"] = "true"


def _narrower(policy: dict[str, Any]) -> None:
    policy["spec"]["matchConstraints"]["namespaceSelector"] = {"matchLabels": {"a": "b"}}


def _longer(policy: dict[str, Any]) -> None:
    policy["spec"]["validations"].append({"expression": "true"})


async def test_policies_that_were_changed(world: World) -> None:
    """Whatever was changed about one, it is not the release's any more."""
    changes = {
        "tokenbroker-tokens": (_ignoring, "its failurePolicy is Ignore"),
        "tokenbroker-secrets": (_other_account, "not matched to system:serviceaccount:tokenbroker:tokenbroker"),
        "tokenbroker-clients": (_toothless, "spec.validations[0].expression"),
        "tokenbroker-registration": (_narrower, "spec.matchConstraints.namespaceSelector"),
        "tokenbroker-anchors": (_longer, "spec.validations"),
    }
    async with AsyncExitStack() as changed:
        for name, (change, _) in changes.items():
            await changed.enter_async_context(world.changed(f"{ADMISSION}/validatingadmissionpolicies/{name}", change))
        told = await world.ask()
    await world.in_force()

    for name, (_, told_by) in changes.items():
        assert told_by in told.one(f"policy.{name}")["text"]


async def test_what_an_overlay_chooses_is_no_change(world: World) -> None:
    """Audiences and the longest life are the operator's."""

    def chosen(policy: dict[str, Any]) -> None:
        policy["spec"]["variables"][1]["expression"] = "3600"

    async with world.changed(f"{ADMISSION}/validatingadmissionpolicies/tokenbroker-tokens", chosen):
        told = await world.ask()

    assert "maximumSeconds: 3600" in told.text("policy.tokenbroker-tokens")
    assert told.problems == set()


@pytest.mark.parametrize(
    ("change", "told_by"),
    [
        ({"validationActions": ["Audit"]}, "and not only Deny"),
        ({"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}, "binding.spec.matchResources"),
    ],
)
async def test_a_binding_that_was_changed(world: World, change: dict[str, Any], told_by: str) -> None:
    """One that only warns, or that holds in some namespaces only."""
    path = f"{ADMISSION}/validatingadmissionpolicybindings/tokenbroker-anchors"
    async with world.changed(path, lambda binding: binding["spec"].update(change)):
        told = await world.ask()

    assert told_by in told.text("policy.tokenbroker-anchors")


@pytest.mark.parametrize("name", ["tokenbroker-secrets", "tokenbroker-tokens"])
async def test_a_policy_that_is_not_in_force_is_seen_by_trying(world: World, name: str) -> None:
    """What must be refused in the broker's name is let pass."""
    async with world.without(f"{ADMISSION}/validatingadmissionpolicybindings/{name}"):

        async def passes() -> bool:
            return f"policy.{name}.tried" in (await world.ask()).problems

        await until(passes, what="the API server has forgotten the binding")
        assert await passes()
    await world.in_force()


async def test_who_may_look_at_nothing_is_told_so(world: World) -> None:
    """Nothing is a problem that could not be seen."""
    await bound_token(world.cluster, "default", "nobody", "nobody")
    nobody = world.cluster.kubeconfig_for(await world.cluster.token_for("default", "nobody"))
    told = await world.ask(user=nobody, vault_token="")

    assert told.problems == set()
    unclear = {it["id"] for it in told.findings if it["state"] == "cannot tell"}
    assert {"crd.schema", "policy.tokenbroker-tokens", "policy.tokenbroker-tokens.tried", "rights.missing"} <= unclear
    assert {"vault.login", "vault.role", "vault.policy", "vault.mount", "certificate.cluster-ca"} <= unclear


async def test_a_right_that_the_broker_lacks(world: World) -> None:
    """The rights are named, with the place."""
    path = f"{RBAC}/clusterroles/tokenbroker"
    async with world.changed(path, lambda role: role["rules"].pop(1)):
        told = await world.ask()
    async with world.without(f"{RBAC}/namespaces/tokenbroker/rolebindings/tokenbroker-lease"):
        unbound = await world.ask()

    assert "patch tokenclients.tokenbroker.dev/status in the whole cluster" in told.text("rights.missing")
    assert f"update leases.coordination.k8s.io/{LEASE} in tokenbroker" in unbound.text("rights.missing")


async def test_a_right_that_is_too_much(world: World) -> None:
    """Any other binding of the broker's account is told, with the line that takes it away."""
    path = await bind(world.cluster, "", "extra", ("ClusterRole", "system:node-bootstrapper"), account(*ACCOUNT))
    told = await world.ask()
    await world.cluster.request("DELETE", path)

    assert told.problems == {"rights.too-much"}
    assert "kubectl delete clusterrolebinding extra" in told.text("rights.too-much")


async def _removed(tenant: Tenant, client: str) -> None:
    """Delete a client and wait until the broker has let it go."""

    async def gone() -> bool:
        return (await tenant.cluster.request("GET", f"{tenant.path}/{client}"))[0] == 404

    await tenant.cluster.request("DELETE", f"{tenant.path}/{client}")
    await until(gone, what=f"{client} is gone")


async def test_a_client_that_the_broker_may_not_mint_for(world: World) -> None:
    """The namespaces are named."""
    tenant = await Tenant.create(world.cluster, "lacking")
    client = {"serviceAccount": {"name": "web"}}
    await tenant.client("web", client)
    told = await world.ask()
    await _removed(tenant, "web")

    assert told.problems == {"rights.mint"}
    assert "lacking" in told.text("rights.mint")


async def test_a_client_that_no_broker_looks_at(world: World) -> None:
    """A status of another generation tells of a broker that does not run, and one without conditions is no problem."""
    tenant = await Tenant.create(world.cluster, "unseen")
    await tenant.account("web")
    await world.broker.program.stop()
    try:
        await tenant.client("web", {"serviceAccount": {"name": "web"}})
        told = await doctor(world.cluster, "--client", "unseen/web")
    finally:
        world.broker.program.start()
        await world.broker.ready()
        await _removed(tenant, "web")
        await world.cluster.request("DELETE", f"{RBAC}/namespaces/unseen/rolebindings")

    assert told.problems == {"client.observed"}
    assert "it does not run" in told.text("client.observed")


async def test_a_vault_that_is_sealed(world: World) -> None:
    """Nothing else is asked of it then."""
    await world.lab.vault.seal()
    try:
        told = await world.ask()
    finally:
        await world.lab.vault.unseal()

    assert told.problems == {"vault.reachable"}
    assert "is sealed vault operator unseal" in told.text("vault.reachable")
    assert told.state("vault.role") == ""


async def test_a_vault_that_is_away_or_unknown(world: World) -> None:
    """Away, or with a certificate that the CA does not vouch for."""
    await world.lab.vault.stop()
    try:
        away = await world.ask()
    finally:
        await world.lab.vault.restart()

    assert away.problems == {"vault.reachable"}
    assert "cannot be reached" in away.text("vault.reachable")


ROLE, POLICY = "auth/kubernetes/role/tokenbroker", "sys/policies/acl/tokenbroker"
READS = {"policy": 'path "secret/*" { capabilities = ["read"] }'}


@pytest.mark.parametrize(
    ("harms", "told_by"),
    [
        (
            [("POST", ROLE, {"bound_service_account_namespaces": "*", "audience": ""}), ("PUT", POLICY, READS)],
            {
                "vault.role": ["bound_service_account_namespaces is ['*'] and not ['tokenbroker']", "audience is "],
                "vault.policy": ["not that of this release", "vault policy write tokenbroker"],
            },
        ),
        (
            [("DELETE", ROLE, None), ("DELETE", POLICY, None), ("DELETE", "sys/mounts/secret", None)],
            {
                "vault.role": ["there is no role", "deploy/vault/setup.sh"],
                "vault.policy": ["there is no policy", "deploy/vault/setup.sh"],
                "vault.mount": ["no secrets engine", "vault secrets enable -path=secret"],
            },
        ),
        ([("DELETE", "sys/auth/kubernetes", None)], {"vault.login": ["no kubernetes login", "deploy/vault/setup.sh"]}),
    ],
)
async def test_a_vault_that_is_set_up_wrong(
    world: World, harms: list[tuple[str, str, dict[str, Any] | None]], told_by: dict[str, list[str]]
) -> None:
    """Role, policy, login and engine, each with the line that sets it up; setup.sh then mends it."""
    _, role = await world.lab.vault.api("GET", ROLE)
    for method, path, change in harms:
        body = role["data"] | change if change and path == ROLE else change
        status, answer = await world.lab.vault.api(method, path, body)
        assert status in {200, 204}, answer
    try:
        told = await world.ask()
    finally:
        await configure_for_broker(world.lab.vault, world.cluster)

    for identity, words in told_by.items():
        assert [word for word in words if word not in told.text(identity)] == []
    assert (await world.ask()).problems == set()


async def test_an_engine_of_version_1(world: World) -> None:
    """The broker's configuration names the mount."""
    await world.lab.vault.api("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})

    def old(config_map: dict[str, Any]) -> None:
        config = yaml.safe_load(config_map["data"]["config.yaml"]) | {"vault": {"mount": "old"}}
        config_map["data"]["config.yaml"] = yaml.safe_dump(config)

    async with world.changed(CONFIG_MAP, old):
        told = await world.ask()

    assert "no KV of version 2" in told.text("vault.mount")
    assert "vault.policy" in told.problems, "the policy is for another mount"


def _configured(**data: str) -> Any:
    return lambda config_map: config_map["data"].update(data)


async def test_a_ca_that_is_not_the_api_servers(world: World) -> None:
    """What clients are told to trust does not vouch for the API server."""
    async with world.changed(CONFIG_MAP, _configured(**{"cluster-ca.crt": world.ca_file.read_text()})):
        told = await world.ask()

    assert told.problems == {"certificate.api-server"}
    assert "cluster.ca_file" in told.text("certificate.api-server")


@pytest.mark.parametrize("config", ["no: [yaml", "- a list", "cluster: 1"])
async def test_a_configuration_that_cannot_be_read(world: World, config: str) -> None:
    """What it says is then not known."""
    async with world.changed(CONFIG_MAP, _configured(**{"config.yaml": config})):
        told = await world.ask()

    assert told.problems == set()
    assert told.state("certificate.cluster-ca") == "cannot tell"
    assert told.state("certificate.broker") == "cannot tell"


async def test_a_ca_file_that_holds_none(world: World) -> None:
    """It is told once."""
    async with world.changed(CONFIG_MAP, _configured(**{"cluster-ca.crt": "nothing"})):
        told = await world.ask()

    assert told.problems == {"certificate.cluster-ca"}


async def test_certificates_that_have_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from a time after their end: the clocks differ then, too."""
    end = x509.load_pem_x509_certificate(world.ca_file.read_bytes()).not_valid_after_utc

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            del tz
            return end + dt.timedelta(days=1)

    monkeypatch.setattr(doctor_command, "datetime", Later)
    told = await world.ask()

    assert {"certificate.cluster-ca", "certificate.api-server", "certificate.broker"} <= told.problems
    assert {"clock.vault", "clock.broker", "clock.api-server"} <= told.problems
    assert "kubectl create secret tls tokenbroker-tls -n tokenbroker" in told.text("certificate.broker")


def test_certificates_that_end_soon() -> None:
    """A week ahead it is a problem already."""
    now = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
    states = [ending("x", "it", now + dt.timedelta(days=days), now, "mend").state for days in (6, 7)]

    assert states == ["problem", "ok"]


async def test_a_url_that_is_not_the_certificates(world: World) -> None:
    """The name is compared; what is no https, and what does not listen, cannot be told."""
    named = await world.ask("--url", world.broker.url.replace("127.0.0.1", "127.1"))
    plain = await world.ask("--url", world.broker.url.replace("https", "http"))
    away = await world.ask("--url", f"https://127.0.0.1:{free_port()}")

    assert named.problems == {"certificate.broker"}
    assert "127.1" in named.text("certificate.broker")
    assert plain.state("certificate.broker") == "cannot tell"
    assert away.state("certificate.broker") == "cannot tell"
    assert away.state("clock.broker") == "cannot tell"


async def test_a_wrong_ca_file_is_refused(world: World) -> None:
    """Before anything is asked."""
    assert (await doctor(world.cluster, "--ca-file", "/nowhere")).code == 2
    assert (await doctor(world.cluster, "--can", "get pods")).code == 2
