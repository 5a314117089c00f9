"""The broker's login to a real Vault that asks a real API server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from broker.errors import BrokerError, Reason
from broker.vault.answer import Answer
from broker.vault.login import VaultLogin
from broker.vault.transport import VaultTransport
from tests.support.broker import ACCOUNT
from tests.support.lab import Lab
from tests.support.rest import JsonObject
from tests.support.rotation import HandClock

METADATA = "/v1/secret/metadata/tokenbroker/nothing"


@dataclass
class Outcomes:
    """Implements LoginMetrics."""

    seen: list[str] = field(default_factory=list)

    def vault_login(self, outcome: str) -> None:
        """Keep an outcome."""
        self.seen.append(outcome)


@dataclass
class Desk:
    """A login of the test's own, with a role of its own."""

    lab: Lab
    login: VaultLogin
    role: str
    token_file: Path
    clock: HandClock
    outcomes: list[str]

    async def read(self) -> Answer:
        """Make a call that the broker's policy allows."""
        return await self.login.call("GET", METADATA, None)

    async def set_role(self, **changes: object) -> None:
        """Write the role, or change it."""
        role: JsonObject = {
            "bound_service_account_names": [ACCOUNT[1]],
            "bound_service_account_namespaces": [ACCOUNT[0]],
            "audience": "vault",
            "token_policies": ["tokenbroker"],
            "token_no_default_policy": True,
            "token_ttl": "10m",
            "token_max_ttl": "24h",
        }
        status, answer = await self.lab.vault.api("POST", f"auth/kubernetes/role/{self.role}", role | changes)
        assert status in {200, 204}, answer

    def vault_token(self) -> str:
        """Return the token that Vault gave out."""
        assert self.login._lease is not None
        return self.login._lease.token.reveal()


@pytest_asyncio.fixture(loop_scope="session")
async def desk(installed: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """Prepare a login that has not been used yet."""
    token_file = tmp_path / "token"
    token_file.write_text(await installed.cluster.token_for(*ACCOUNT, audiences=["vault"]) + "\n")
    clock, outcomes, role = HandClock(), Outcomes(), f"role-{abs(hash(request.node.name))}"
    async with (
        VaultTransport(installed.vault.address, installed.vault.ca_file, 10) as transport,
        VaultLogin(
            transport, mount="kubernetes", role=role, token_file=token_file, clock=clock, metrics=outcomes
        ) as login,
    ):
        desk = Desk(installed, login, role, token_file, clock, outcomes.seen)
        await desk.set_role()
        yield desk


async def test_the_login_token_is_none_for_the_api_server(desk: Desk) -> None:
    """What Vault is shown, and what it gives out, get 401 from the API server: neither is the broker's identity."""
    await desk.read()

    for token in (desk.token_file.read_text().strip(), desk.vault_token()):
        assert (await desk.lab.cluster.request("GET", "/api", token=token))[0] == 401


async def test_many_calls_at_once_log_in_once(desk: Desk) -> None:
    """The login is shared by all who wait for it."""
    await asyncio.gather(*(desk.read() for _ in range(50)))

    assert desk.outcomes == ["login"]


async def test_a_caller_that_gives_up_leaves_the_login_to_the_others(desk: Desk) -> None:
    """Cancelling the caller that started the login fails nobody else."""
    first = asyncio.create_task(desk.read())
    second = asyncio.create_task(desk.read())
    await asyncio.sleep(0)  # both are waiting for the login now
    first.cancel()

    await second

    assert first.cancelled()
    assert desk.outcomes == ["login"]


async def test_the_token_is_renewed_after_two_thirds_of_its_lease(desk: Desk) -> None:
    """Before that nothing happens; after it the same token gets a longer lease."""
    await desk.read()
    token = desk.vault_token()
    desk.clock.pass_(399)
    await desk.read()
    assert desk.outcomes == ["login"]

    desk.clock.pass_(2)
    await desk.read()

    assert desk.outcomes == ["login", "renewal"]
    assert desk.vault_token() == token


async def test_near_its_longest_life_the_broker_logs_in_anew(desk: Desk) -> None:
    """Where Vault renews for less than half of the first lease, a new token is better."""
    await desk.read()
    token = desk.vault_token()
    await desk.set_role(token_ttl="2m", token_max_ttl="4m")  # seen by the renewal
    desk.clock.pass_(401)

    await desk.read()

    assert desk.outcomes == ["login", "login"]
    assert desk.vault_token() != token


async def test_after_a_lease_that_ran_out_the_broker_logs_in_anew(desk: Desk) -> None:
    """A broker that was asleep for long does not even try to renew."""
    await desk.read()
    desk.clock.pass_(3600)

    await desk.read()

    assert desk.outcomes == ["login", "login"]


async def test_a_revoked_token_leads_to_one_login_and_the_call_succeeds(desk: Desk) -> None:
    """Whoever waits notices nothing, however many calls meet the refusal at once."""
    await desk.read()
    await desk.lab.vault.api("POST", "auth/token/revoke", {"token": desk.vault_token()})
    desk.clock.pass_(11)

    answers = await asyncio.gather(*(desk.read() for _ in range(20)))

    assert {answer.status for answer in answers} == {404}
    assert desk.outcomes == ["login", "login"]


async def test_a_revoked_token_that_was_due_is_replaced(desk: Desk) -> None:
    """A renewal that Vault refuses is followed by a login."""
    await desk.read()
    await desk.lab.vault.api("POST", "auth/token/revoke", {"token": desk.vault_token()})
    desk.clock.pass_(401)

    await desk.read()

    assert desk.outcomes == ["login", "login"]


async def test_a_refusing_policy_is_no_reason_to_log_in_over_and_over(desk: Desk) -> None:
    """Refused calls make at most one login in ten seconds, and say what to mend."""
    await desk.set_role(token_policies=["none"])
    for _ in range(5):
        with pytest.raises(BrokerError, match=r"policy\.hcl") as caught:
            await desk.read()
    assert desk.outcomes == ["login"]

    desk.clock.pass_(11)
    for _ in range(5):
        with pytest.raises(BrokerError):
            await desk.read()

    assert caught.value.reason is Reason.VAULT_DENIED
    assert desk.outcomes == ["login", "login"]


async def test_a_policy_that_was_added_to_the_role_is_picked_up(desk: Desk) -> None:
    """Mending the role is enough; nobody has to restart the broker."""
    await desk.set_role(token_policies=["none"])
    with pytest.raises(BrokerError):
        await desk.read()
    await desk.set_role()
    desk.clock.pass_(11)

    assert (await desk.read()).status == 404


async def test_the_token_file_is_read_at_each_login(desk: Desk) -> None:
    """The kubelet replaces the file: a login that failed with the old content succeeds with the new."""
    good = desk.token_file.read_text()
    desk.token_file.write_text(await desk.lab.cluster.token_for(*ACCOUNT))  # for the API server
    with pytest.raises(BrokerError) as caught:
        await desk.read()
    desk.token_file.write_text(good)

    await desk.read()

    assert caught.value.reason is Reason.VAULT_DENIED
    assert "bound_service_account_names" in caught.value.operator_detail
    assert desk.outcomes == ["vault_denied", "login"]


@pytest.mark.parametrize("content", [None, "\u00e4"])
async def test_a_missing_or_broken_token_file_is_named(desk: Desk, content: str | None) -> None:
    """The error says which file, and what belongs there; not what it holds."""
    desk.token_file.unlink()
    if content is not None:
        desk.token_file.write_text(content)

    with pytest.raises(BrokerError, match="projected service account token") as caught:
        await desk.read()

    assert str(desk.token_file) in caught.value.operator_detail
    assert caught.value.reason is Reason.VAULT_UNAVAILABLE


async def test_nothing_in_the_log_or_in_errors_tells_a_token(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at DEBUG, and not where Vault refuses."""
    caplog.set_level("DEBUG")
    await desk.read()
    with pytest.raises(BrokerError) as caught:
        await desk.login.call("GET", "/v1/sys/policies/acl", None)

    said = caplog.text + repr(caught.value) + repr(desk.login._lease)
    assert desk.vault_token() not in said
    assert desk.token_file.read_text().strip() not in said
