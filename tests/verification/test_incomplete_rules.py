"""Where an authorizer cannot list its rules, what is not shown is asked for, and what cannot be asked is no pass."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from broker.model.strength import strong_questions
from tests.support.accounts import Account, rule, until_dead, until_issued, until_refused, works
from tests.support.authorizer import Authorizer
from tests.support.broker import BrokerProcess, Tenant
from tests.support.doctor import doctor
from tests.support.installed import install
from tests.support.lab import Lab
from tests.support.processes import until


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A broker at an API server with RBAC and a webhook."""

    lab: Lab
    authorizer: Authorizer
    broker: BrokerProcess

    async def account(self, namespace: str) -> Account:
        """Make an account that may get and list pods, by RBAC."""
        tenant = await Tenant.create(self.lab.cluster, namespace)
        return await Account.create(tenant, "reader", rule("get,list", "pods"))

    def allow(self, account: Account, verb: str, resource: str) -> None:
        """Give it a right that no rule shows."""
        self.authorizer.rights.add((user(account), verb, resource))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def doubtful(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doubtful]:
    """Start all of it."""
    folder: Path = tmp_path_factory.mktemp("authorizer")
    async with Authorizer.start(folder) as authorizer, Lab.start(flags=authorizer.flags, own=True) as lab:
        await install(lab.cluster)
        async with BrokerProcess.start(lab) as broker:
            yield Doubtful(lab, authorizer, broker)


def user(account: Account) -> str:
    """Return the account's user name."""
    return f"system:serviceaccount:{account.tenant.namespace}:{account.name}"


async def test_weak_account_is_served_when_all_was_asked(doubtful: Doubtful) -> None:
    """Every question about strength, once; the second look asks only about what is expected."""
    account = await doubtful.account("weak")
    client = await account.client(expect={"allow": ["list pods"], "deny": ["get configmaps"]})
    await account.until_condition("Ready", "True", "Ready")
    await account.until_condition("AccessVerified", "True", "Verified")
    first = doubtful.authorizer.about(user(account))
    doubtful.authorizer.asked.clear()
    await account.touch()

    async def looked_at_again() -> bool:
        return ("deletecollection", "configmaps") in doubtful.authorizer.about(user(account))

    await until(looked_at_again, what="the account is looked at again")
    token = await until_issued(doubtful.broker, client)
    later = doubtful.authorizer.about(user(account))

    questions = strong_questions("weak")
    print(f"\nin doubt: {len(questions)} questions about strength an hour")  # noqa: T201
    assert {(one.verb, one.resource) for one in questions} <= set(first)
    verbs = ("get", "list", "watch", "patch", "update", "delete", "deletecollection")  # each of them reads
    assert set(later) == {(verb, "configmaps") for verb in verbs}
    assert (await account.grants())[0]["strong"] is False
    assert await works(doubtful.lab.cluster, token)


async def test_strength_that_no_rule_shows_is_found(doubtful: Doubtful) -> None:
    """By the authorizer's word; the condition says what, and has no rule to name."""
    account = await doubtful.account("hidden-strength")
    doubtful.allow(account, "create", "pods")
    client = await account.client()
    await until_refused(doubtful.broker, client, "account_too_strong")
    condition = await account.until_condition("Ready", "False", "AccountTooStrong")

    assert "it may create pods, which runs code" in condition["message"]
    assert "by the rule" not in condition["message"]
    await account.until_without_anchors()


async def test_denied_right_that_no_rule_shows_ends_tokens(doubtful: Doubtful) -> None:
    """Given while a token lives: at the next look the client is refused, and the token ends."""
    account = await doubtful.account("hidden-right")
    client = await account.client(expect={"deny": ["get configmaps"]})
    await account.until_condition("Ready", "True", "Ready")
    token = await until_issued(doubtful.broker, client)
    doubtful.allow(account, "list", "configmaps")
    await account.touch()
    await until_refused(doubtful.broker, client, "access_not_as_declared")
    condition = await account.until_condition("AccessVerified", "False", "AccessNotAsDeclared")
    await until_dead(doubtful.lab.cluster, token)

    assert "deny 'get configmaps' does not hold: the API server's authorizer allows it" in condition["message"]


async def test_right_on_its_own_namespace_that_no_rule_shows(doubtful: Doubtful) -> None:
    """The authorizer is asked about the Namespace in itself, as the API server does for a request that names one."""
    account = await doubtful.account("hidden-namespace")
    doubtful.authorizer.inside.add((user(account), "get", "namespaces", "hidden-namespace"))
    client = await account.client(expect={"deny": ["get namespaces"]})
    await until_refused(doubtful.broker, client, "access_not_as_declared")
    strong = await doubtful.account("hidden-labels")
    doubtful.authorizer.inside.add((user(strong), "patch", "namespaces", "hidden-labels"))
    await until_refused(doubtful.broker, await strong.client(), "account_too_strong")
    path = "/api/v1/namespaces/hidden-namespace"
    status, _ = await doubtful.lab.cluster.request("GET", path, token=account.token)

    assert status == 200


async def test_what_cannot_be_asked_is_no_pass(doubtful: Doubtful) -> None:
    """Nobody can ask about "any resource": AccessVerified is Unknown, and the client is served."""
    account = await doubtful.account("unknowable")
    client = await account.client(expect={"deny": ["delete *"]})
    await account.until_condition("Ready", "True", "Ready")
    condition = await account.until_condition("AccessVerified", "Unknown", "RulesIncomplete")
    told = await doctor(doubtful.lab.cluster, "--client", client.id)

    assert "deny 'delete *' could not be verified" in condition["message"]
    assert await works(doubtful.lab.cluster, await until_issued(doubtful.broker, client))
    assert told.state("client.AccessVerified") == "cannot tell"
    assert "could not be verified" in told.text("client.AccessVerified")


async def test_allowed_right_that_no_rule_shows_counts(doubtful: Doubtful) -> None:
    """A right by the webhook is a right."""
    account = await doubtful.account("hidden-allow")
    doubtful.allow(account, "list", "services")
    await account.client(expect={"allow": ["list services", "list pods"]})
    await account.until_condition("AccessVerified", "True", "Verified")

    assert ("list", "services") in doubtful.authorizer.about(user(account))
