"""Policies that are not in force, each way: the broker is not ready, issues nothing and says which one it is."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import pytest
import pytest_asyncio
import yaml

from tests.support.accounts import Account, ask, rule, until_issued, until_refused, works
from tests.support.broker import ROOT, BrokerProcess, Registered, Tenant
from tests.support.cluster import Cluster
from tests.support.doctor import doctor
from tests.support.installed import install, until_not_in_force
from tests.support.lab import Lab
from tests.support.processes import until

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RECOVERS_WITHIN = 20.0
"""The canary tries every 5 s, and the API server takes a moment to know a policy."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cluster whose policies the tests change, and a client that has a token in Vault."""

    lab: Lab
    account: Account
    client: Registered

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self.lab.cluster

    async def versions(self) -> int:
        """Return how many versions of the client's token were written to Vault."""
        _, answer = await self.lab.vault.api("GET", "secret/metadata/tokenbroker/lab/shop/reader/default")
        return int(answer["data"]["current_version"])

    async def ask_for_a_version(self) -> None:
        """Ask for a new version in Vault, by annotation."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        change = {"metadata": {"annotations": {"tokenbroker.dev/rotate-requested": now}}}
        await self.cluster.request("PATCH", f"{self.account.tenant.path}/reader", change)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker there, ready or not."""

    prepared: Prepared
    broker: BrokerProcess

    async def readyz(self) -> tuple[int, str]:
        """Return what the broker says about itself; 0 where it does not listen yet."""
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.broker.ops_url}/readyz") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def until_missing(self, policy: str, seconds: float = 30.0) -> None:
        """Wait until the broker has noticed."""

        async def noticed() -> bool:
            status, text = await self.readyz()
            return status == 503 and policy in text

        await until(noticed, what=f"{policy} is missed", seconds=seconds)

    async def until_ready(self) -> None:
        """Wait until the broker issues again."""

        async def ready() -> bool:
            return (await self.readyz())[0] == 200

        await until(ready, what="the broker is ready", seconds=RECOVERS_WITHIN)

    async def gauge(self, policy: str) -> str:
        """Return what the gauge says."""
        start = f'tokenbroker_policy_missing{{policy="{policy}"}} '
        lines = (await self.broker.metrics()).splitlines()
        return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")

    async def assert_nothing_is_issued(self, policy: str) -> None:
        """Ask for a token, for one in Vault, and the gauges."""
        before = await self.prepared.versions()
        refused = await ask(self.broker, self.prepared.client)
        delivered = await ask(self.broker, self.prepared.client, deliver="vault")
        other = "tokenbroker-tokens" if policy == "tokenbroker-secrets" else "tokenbroker-secrets"

        assert (refused.status, refused.body["code"]) == (503, "policy_missing")
        assert policy not in str(refused.body)
        assert (delivered.status, delivered.body["code"]) == (503, "policy_missing")
        assert (await self.gauge(policy), await self.gauge(other)) == ("1.0", "0.0")
        assert await self.prepared.versions() == before


@pytest_asyncio.fixture(loop_scope="session")
async def prepared(whole: Prepared) -> AsyncIterator[Prepared]:
    """Apply all of deploy/base again when a test has done its harm."""
    yield whole
    await install(whole.cluster)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole() -> AsyncIterator[Prepared]:
    """Start all of it."""
    async with Lab.start(own=True) as lab:
        await install(lab.cluster)
        async with BrokerProcess.start(lab):
            account = await Account.create(await Tenant.create(lab.cluster, "shop"), "reader", rule("get", "pods"))
            client = await account.client(vault={"ttl": "1h"})
            await account.until_condition("VaultSynced", "True", "Synced")
        yield Prepared(lab, account, client)


async def _break(cluster: Cluster, policy: str, how: str) -> None:
    """Do a harm, and wait for it: a broker that looks before finds all well, and looks again a minute later."""
    path = f"{ADMISSION}/validatingadmissionpolicies/{policy}"
    if how == "binding":
        await cluster.request("DELETE", f"{ADMISSION}/validatingadmissionpolicybindings/{policy}")
    elif how == "policy":
        await cluster.request("DELETE", path)
    else:
        name = {"name": "the-broker", "expression": f"request.userInfo.username == '{how}'"}
        await cluster.request("PATCH", path, {"spec": {"matchConditions": [name]}})
    await until_not_in_force(cluster, policy)


WAYS = [
    ("tokenbroker-secrets", "binding"),
    ("tokenbroker-tokens", "binding"),
    ("tokenbroker-tokens", "policy"),
    ("tokenbroker-secrets", "system:serviceaccount:elsewhere:tokenbroker"),
    ("tokenbroker-tokens", "system:serviceaccount:tokenbroker:minter"),
]


@pytest.mark.parametrize(("policy", "how"), WAYS)
async def test_policy_that_is_not_in_force_at_start(policy: str, how: str, prepared: Prepared) -> None:
    """Its binding or itself deleted, or matched to another name, which no call would show; then it is mended."""
    await _break(prepared.cluster, policy, how)
    name = f"starts-{WAYS.index((policy, how))}"
    async with BrokerProcess.start_unready(prepared.lab, name) as broker:
        guarded = Guarded(prepared, broker)
        await guarded.until_missing(policy)
        await guarded.assert_nothing_is_issued(policy)
        await install(prepared.cluster)
        await guarded.until_ready()

        assert await guarded.gauge(policy) == "0.0"
        assert await works(prepared.cluster, await until_issued(broker, prepared.client))


async def test_policy_that_goes_while_the_broker_runs(prepared: Prepared) -> None:
    """Noticed within a minute; then nothing is written to Vault either, and what was handed out is not ended."""
    async with BrokerProcess.start(prepared.lab, "runs") as broker:
        guarded = Guarded(prepared, broker)
        token, versions = await until_issued(broker, prepared.client), await prepared.versions()
        await _break(prepared.cluster, "tokenbroker-secrets", "binding")
        await guarded.until_missing("tokenbroker-secrets", seconds=75)
        await prepared.ask_for_a_version()
        await prepared.account.until_condition("VaultSynced", "False", "PolicyMissing")
        await guarded.assert_nothing_is_issued("tokenbroker-secrets")
        still = await prepared.versions()
        await install(prepared.cluster)
        await guarded.until_ready()

        async def written() -> bool:
            return await prepared.versions() > versions

        await until(written, what="the version that was asked for is written", seconds=75)
        assert still == versions
        assert await works(prepared.cluster, token)


async def test_doctor_of_one_client_says_it(prepared: Prepared) -> None:
    """Though its conditions do not yet: nobody gets anything, whatever they say."""
    where = ("--client", prepared.client.id)
    before = await doctor(prepared.cluster, *where)
    await _break(prepared.cluster, "tokenbroker-tokens", "binding")

    async def told() -> bool:
        return "broker.policies" in (await doctor(prepared.cluster, *where)).problems

    await until(told, what="the doctor sees it", seconds=RECOVERS_WITHIN)
    after = await doctor(prepared.cluster, *where)
    assert before.state("broker.policies") == "ok"
    assert after.code == 1
    assert "(policy_missing): what tokenbroker-tokens must refuse is let pass" in after.text("broker.policies")
    assert "kubectl apply -k deploy/overlays/YOURS" in after.text("broker.policies")


async def test_install_in_another_namespace_without_its_transformer(prepared: Prepared) -> None:
    """The policies match an account that does not exist there: that broker never gets ready, and says which."""
    cluster = prepared.cluster
    folder = prepared.lab.folder / "overlay"
    folder.mkdir()
    (folder / "base").symlink_to(ROOT / "deploy" / "base")
    overlay = {"namespace": "forgetful", "resources": ["base"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    rendered = yaml.safe_load_all(await cluster.kubectl("kustomize", str(folder)))
    await cluster.apply(yaml.safe_dump_all(one for one in rendered if one["kind"] != "Deployment"))
    token = prepared.lab.folder / "forgetful-token"
    token.write_text(await cluster.token_for("forgetful", "tokenbroker"))
    kubernetes = {"server": cluster.server, "ca_file": str(cluster.ca_file), "token_file": str(token)}
    tenant = await Tenant.create(cluster, "there", ("forgetful", "tokenbroker"))
    client = await (await Account.create(tenant, "reader", rule("get", "pods"))).client()
    lease = {"name": "tokenbroker-leader", "duration_seconds": 5}  # the one that deploy/base allows
    unready = BrokerProcess.start_unready(
        prepared.lab, "forgetful", kubernetes=kubernetes, namespace="forgetful", lease=lease
    )
    async with unready as broker:
        guarded = Guarded(prepared, broker)
        await guarded.until_missing("tokenbroker-secrets, tokenbroker-tokens")
        await until_refused(broker, client, "policy_missing")

        assert [await guarded.gauge(policy) for policy in ("tokenbroker-secrets", "tokenbroker-tokens")] == ["1.0"] * 2


async def test_canary_that_is_switched_off(prepared: Prepared) -> None:
    """A broker that was told that there are no policies is ready without them."""
    await _break(prepared.cluster, "tokenbroker-tokens", "binding")
    async with BrokerProcess.start(prepared.lab, "trusting", admission={"policies": "absent"}) as broker:
        token = await until_issued(broker, prepared.client)

        assert (await Guarded(prepared, broker).readyz())[0] == 200
        assert await works(prepared.cluster, token)
