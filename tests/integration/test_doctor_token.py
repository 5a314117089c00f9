"""``tokenbroker doctor --token-file``: each fault is caused on a real API server, and named."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broker.cli.doctor import command as doctor_command
from tests.support.broker import Tenant
from tests.support.cluster import Cluster
from tests.support.command import command_with
from tests.support.doctor import Told, bound_token, doctor, forged
from tests.support.marks import own_cluster
from tests.support.processes import until

_RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other() -> AsyncIterator[Cluster]:
    """Start another cluster, which calls itself the same and signs with another key."""
    async with Cluster.start(own=True) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="session")
async def token(tenant: Tenant) -> str:
    """Return a good token of the account ``web``, bound to the Secret ``anchor``."""
    return await bound_token(tenant.cluster, tenant.namespace, "web", "anchor")


async def _ask(tenant: Tenant, token: str, *more: str, user: Path | None = None) -> Told:
    return await doctor(tenant.cluster, "--token-file", "-", *more, stdin=token, user=user)


async def _delete(tenant: Tenant, what: str) -> None:
    status, body = await tenant.cluster.request("DELETE", f"/api/v1/namespaces/{tenant.namespace}/{what}")
    assert status == 200, body


async def test_a_good_token_has_no_problem(tenant: Tenant, token: str) -> None:
    """Every check says why it is satisfied, and the command ends with 0."""
    told = await _ask(tenant, token)

    assert told.code == 0
    assert {it["state"] for it in told.findings} == {"ok"}
    assert {"token.signature", "token.anchor", "token.review", "clock.api-server"} <= {it["id"] for it in told.findings}


@own_cluster
async def test_an_expired_token(tenant: Tenant, token: str) -> None:
    """The signature is the cluster's, so nothing but the time is wrong."""
    now = int(time.time())
    told = await _ask(tenant, forged(tenant.cluster, token, iat=now - 7200, nbf=now - 7200, exp=now - 3600))

    assert told.code == 1
    assert told.problems == {"token.time", "token.review", "token.accepted"}
    assert "1h ago" in told.text("token.time")
    assert "by the clock of the API server" in told.text("token.time")
    assert "tokenbroker token get" in told.text("token.time")
    assert "expired" in told.text("token.review")


@own_cluster
async def test_a_token_of_tomorrow(tenant: Tenant, token: str) -> None:
    """One that is not valid yet tells of a clock that is wrong somewhere."""
    now = int(time.time())
    told = await _ask(tenant, forged(tenant.cluster, token, iat=now + 3600, nbf=now + 3600, exp=now + 7200))

    assert {"token.time", "token.accepted"} <= told.problems
    assert "not valid before" in told.text("token.time")
    assert "NTP" in told.text("token.time")


@own_cluster
async def test_a_token_without_an_end(tenant: Tenant, token: str) -> None:
    """It is none of the broker's."""
    told = await _ask(tenant, forged(tenant.cluster, token, exp=None))

    assert "never expires" in told.text("token.time")


@pytest.mark.parametrize(("minutes", "word"), [(10, "ahead of"), (-10, "behind")])
async def test_a_clock_that_is_wrong_here(
    tenant: Tenant, token: str, monkeypatch: pytest.MonkeyPatch, minutes: int, word: str
) -> None:
    """The clock of this machine is compared with the API server's, by which the token is judged."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(minutes=minutes)

    monkeypatch.setattr(doctor_command, "datetime", Shifted)
    told = await _ask(tenant, token)

    assert told.problems == {"clock.api-server"}
    assert f"{word} that of the API server" in told.text("clock.api-server")
    assert "timedatectl" in told.text("clock.api-server")


async def test_a_token_for_somebody_else(tenant: Tenant, token: str) -> None:
    """TokenReview tells a good token for another audience from one that is no good."""
    assert token
    vault = await tenant.cluster.token_for(tenant.namespace, "web", audiences=["vault"])
    told = await _ask(tenant, vault)

    assert {"token.audience", "token.accepted"} <= told.problems
    assert "for vault alone" in told.text("token.audience")
    assert f"kubectl create token web -n {tenant.namespace}" in told.text("token.audience")

    nobody = tenant.cluster.kubeconfig_for(await tenant.cluster.token_for(tenant.namespace, "web"))
    by_issuer = await _ask(tenant, vault, user=nobody)

    assert "unless its --api-audiences say otherwise" in by_issuer.text("token.audience")


@own_cluster
async def test_a_token_of_another_issuer(tenant: Tenant, token: str) -> None:
    """It is not shown to this cluster, which has no business to see it."""
    told = await _ask(tenant, forged(tenant.cluster, token, iss="https://elsewhere.example"))

    assert told.problems == {"token.issuer"}
    assert "https://elsewhere.example" in told.text("token.issuer")
    assert "--context" in told.text("token.issuer")
    assert told.state("token.accepted") == ""


async def test_a_token_of_another_cluster(tenant: Tenant, other: Cluster) -> None:
    """Clusters call themselves the same by default: the key tells them apart."""
    foreign = await bound_token(other, "default", "web", "anchor")
    told = await _ask(tenant, foreign)

    assert told.state("token.issuer") == "ok"
    assert {"token.signature", "token.accepted", "token.review"} <= told.problems
    assert "no key of this cluster signed it" in told.text("token.signature")


async def test_a_token_that_was_changed(tenant: Tenant, token: str) -> None:
    """The key is the cluster's, the signature is not."""
    head, _, signature = token.rpartition(".")
    told = await _ask(tenant, f"{head}.{signature[:-8]}{'A' * 8}")

    assert {"token.signature", "token.accepted"} <= told.problems
    assert "it was changed" in told.text("token.signature")


async def test_a_token_that_is_bound_to_nothing(tenant: Tenant, token: str) -> None:
    """No anchor is missed then."""
    assert token
    told = await _ask(tenant, await tenant.cluster.token_for(tenant.namespace, "web"))

    assert told.problems == set()
    assert "bound to nothing" in told.text("token.anchor")


async def test_an_anchor_that_is_gone(tenant: Tenant, token: str) -> None:
    """Since when cannot be known: between the token's own beginning and now."""
    await _delete(tenant, "secrets/anchor")
    told = await _ask(tenant, token)

    assert "token.anchor" in told.problems
    assert f"Secret {tenant.namespace}/anchor is gone" in told.text("token.anchor")
    assert "since when cannot be known" in told.text("token.anchor")
    assert "and now" in told.text("token.anchor")


async def test_an_anchor_that_was_made_again(tenant: Tenant, token: str) -> None:
    """The other one's beginning bounds the time."""
    await _delete(tenant, "secrets/anchor")
    await bound_token(tenant.cluster, tenant.namespace, "web", "anchor")
    told = await _ask(tenant, token)

    assert "another one has its name" in told.text("token.anchor")
    assert "when the other one was made" in told.text("token.anchor")


async def test_an_anchor_that_is_being_deleted(tenant: Tenant, token: str) -> None:
    """Where a finalizer holds it, the time is known."""
    where = f"/api/v1/namespaces/{tenant.namespace}/secrets/anchor"
    await tenant.cluster.request("PATCH", where, {"metadata": {"finalizers": ["example.com/held"]}})
    await _delete(tenant, "secrets/anchor")
    told = await _ask(tenant, token)
    await tenant.cluster.request("PATCH", where, {"metadata": {"finalizers": None}})

    assert "is being deleted since" in told.text("token.anchor")


async def test_events_tell_when_an_anchor_went(tenant: Tenant, token: str) -> None:
    """Where somebody recorded it, that is what counts."""
    await _delete(tenant, "secrets/anchor")
    reference = {"kind": "Secret", "namespace": tenant.namespace, "name": "anchor"}
    event = {
        "metadata": {"generateName": "anchor-", "namespace": tenant.namespace},
        "involvedObject": reference,
        "message": "revoked by hand",
        "lastTimestamp": "2026-11-25T09:00:00Z",
    }
    await tenant.cluster.request("POST", f"/api/v1/namespaces/{tenant.namespace}/events", event)
    told = await _ask(tenant, token)

    assert "as recorded: 2026-11-25T09:00:00Z revoked by hand" in told.text("token.anchor")


async def test_an_account_that_was_deleted(tenant: Tenant, token: str) -> None:
    """The account's end is told, with the line that makes it again."""
    await _delete(tenant, "serviceaccounts/web")
    told = await _ask(tenant, token)

    assert "token.account" in told.problems
    assert "was deleted" in told.text("token.account")
    assert f"kubectl create serviceaccount web -n {tenant.namespace}" in told.text("token.account")


async def test_an_account_that_was_made_again(tenant: Tenant, token: str) -> None:
    """Another uid is another account, with the time of its making."""
    await _delete(tenant, "serviceaccounts/web")
    await bound_token(tenant.cluster, tenant.namespace, "web", "anchor")
    told = await _ask(tenant, token)

    assert "another one of that name was made at" in told.text("token.account")


async def test_who_may_ask_nothing_is_told_what_he_cannot_see(tenant: Tenant, token: str) -> None:
    """Without rights the token itself is what can be asked: whether it is accepted, and what it may do."""
    await bound_token(tenant.cluster, tenant.namespace, "nobody", "nobody")
    nobody = tenant.cluster.kubeconfig_for(await tenant.cluster.token_for(tenant.namespace, "nobody"))
    told = await _ask(tenant, token, "--can", f"get pods -n {tenant.namespace}", user=nobody)
    await _delete(tenant, "secrets/anchor")

    async def refused() -> bool:
        return "token.accepted" in (await _ask(tenant, token, user=nobody)).problems

    await until(refused, what="the API server refuses the token")
    after = await _ask(tenant, token, user=nobody)

    unclear = {it["id"] for it in told.findings if it["state"] == "cannot tell"}
    assert unclear == {"token.account", "token.anchor", "token.review"}
    assert told.problems == {"access.can"}
    assert after.state("token.audience") == "cannot tell"


@own_cluster
async def test_what_is_no_token_of_an_account(tenant: Tenant, token: str) -> None:
    """Another kind of JWT is called what it is; no JWT, and a token as an argument, are refused."""
    oidc = await _ask(tenant, forged(tenant.cluster, token, **{"kubernetes.io": None}))
    nonsense = await _ask(tenant, "nonsense")
    argument = await doctor(tenant.cluster, "--token-file", token)

    assert oidc.problems == {"token.kind"}
    assert (nonsense.code, argument.code) == (1, 2)
    assert token not in argument.stderr


async def test_people_get_a_line_a_check(tenant: Tenant, token: str, tmp_path: Path) -> None:
    """The state, the check and what was found, and under a problem what mends it."""
    file = tmp_path / "token"
    file.write_text(token)
    await _delete(tenant, "secrets/anchor")
    ended = await command_with(tenant.cluster.kubeconfig, "doctor", "--token-file", str(file))

    lines = ended.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("problem      token.anchor "))
    assert lines[place + 1].strip().startswith("tokenbroker token get")
    assert token not in ended.stdout
    assert datetime.now(UTC).strftime("%Y-%m-%d") in ended.stdout


@pytest.mark.parametrize(("kind", "root"), [("Pod", "/api/v1/namespaces/{}/pods"), ("Node", "/api/v1/nodes")])
async def test_tokens_that_are_bound_to_something_else(tenant: Tenant, token: str, kind: str, root: str) -> None:
    """Pods and nodes end their tokens as anchors do."""
    assert token
    name, where = f"doctor-{kind.lower()}", root.format(tenant.namespace)
    spec = {"serviceAccountName": "web", "containers": [{"name": "c", "image": "i"}]} if kind == "Pod" else {}
    await tenant.cluster.request("POST", where, {"metadata": {"name": name}, "spec": spec})
    _, found = await tenant.cluster.request("GET", f"{where}/{name}")
    bound = {"kind": kind, "apiVersion": "v1", "name": name, "uid": found["metadata"]["uid"]}
    path = f"/api/v1/namespaces/{tenant.namespace}/serviceaccounts/web/token"
    _, answer = await tenant.cluster.request("POST", path, {"spec": {"boundObjectRef": bound}})
    before = await _ask(tenant, answer["status"]["token"])
    await tenant.cluster.request("DELETE", f"{where}/{name}?gracePeriodSeconds=0")
    after = await _ask(tenant, answer["status"]["token"])

    assert before.state("token.anchor") == "ok"
    assert f"{kind} {tenant.namespace}/{name} is gone" in after.text("token.anchor")
