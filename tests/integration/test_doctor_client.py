"""``tokenbroker doctor --client`` and ``--request-id``: each fault is caused on real servers, and named."""

import json
from pathlib import Path

import pytest

from tests.support.broker import BrokerProcess, Tenant
from tests.support.doctor import Told, bound_token, doctor
from tests.support.processes import until

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
OPT_IN = {"tokenbroker.dev/clients": "enabled"}


async def _ask(tenant: Tenant, *more: str, stdin: str = "", user: Path | None = None) -> Told:
    return await doctor(tenant.cluster, "--client", f"{tenant.namespace}/web", *more, stdin=stdin, user=user)


async def _opted_in(tenant: Tenant) -> None:
    where = f"/api/v1/namespaces/{tenant.namespace}"
    await tenant.cluster.request("PATCH", where, {"metadata": {"labels": OPT_IN}})


async def _registered(tenant: Tenant, broker: BrokerProcess) -> None:
    assert broker.url
    await _opted_in(tenant)
    await tenant.ready_client("web", "web")


async def test_a_client_that_is_well(tenant: Tenant, broker: BrokerProcess) -> None:
    """Account, rights, namespace and conditions are all as they have to be."""
    await _registered(tenant, broker)
    told = await _ask(tenant, "--grant", "default")

    assert told.code == 0
    assert {it["state"] for it in told.findings} == {"ok"}
    wanted = {"client.exists", "client.observed", "client.Ready", "client.namespace", "grant.account", "grant.mint"}
    assert wanted <= {it["id"] for it in told.findings}


async def test_a_client_that_is_not_there(tenant: Tenant) -> None:
    """Nothing else is asked then."""
    told = await _ask(tenant)

    assert [it["id"] for it in told.findings] == ["client.exists"]
    assert told.problems == {"client.exists"}
    assert f"tokenbroker client add web -n {tenant.namespace}" in told.text("client.exists")


async def test_a_grant_that_is_not_there(tenant: Tenant, broker: BrokerProcess) -> None:
    """The grants that there are, are named."""
    assert broker.url
    await tenant.account("web")
    await tenant.client("web", {"name": "read", "serviceAccount": {"name": "web"}})
    told = await _ask(tenant, "--grant", "write")

    assert "client.grant" in told.problems
    assert "name one of its grants: read" in told.text("client.grant")
    assert told.state("grant.account") == ""


async def test_an_account_that_is_gone(tenant: Tenant, broker: BrokerProcess) -> None:
    """The line makes it again."""
    await _registered(tenant, broker)
    await tenant.cluster.request("DELETE", f"/api/v1/namespaces/{tenant.namespace}/serviceaccounts/web")
    told = await _ask(tenant)

    assert "grant.account" in told.problems
    assert f"kubectl create serviceaccount web -n {tenant.namespace}" in told.text("grant.account")


async def test_a_mint_role_that_was_taken_away(tenant: Tenant, broker: BrokerProcess) -> None:
    """Every right that the broker lacks is named."""
    await _registered(tenant, broker)
    binding = f"{_RBAC}/namespaces/{tenant.namespace}/rolebindings/tokenbroker-mint-web"
    await tenant.cluster.request("DELETE", binding)
    told = await _ask(tenant)

    assert "grant.mint" in told.problems
    for right in ("create serviceaccounts/web --subresource=token", "create secrets", "delete secrets"):
        assert right in told.text("grant.mint")
    assert f"tokenbroker check rbac -n {tenant.namespace} -o yaml" in told.text("grant.mint")


async def test_a_mint_role_for_another_account(tenant: Tenant, broker: BrokerProcess) -> None:
    """Only what is missing is named."""
    await _registered(tenant, broker)
    role = f"{_RBAC}/namespaces/{tenant.namespace}/roles/tokenbroker-mint-web"
    _, found = await tenant.cluster.request("GET", role)
    found["rules"][0]["resourceNames"] = ["other"]
    await tenant.cluster.request("PUT", role, found)
    told = await _ask(tenant)

    assert "create serviceaccounts/web --subresource=token" in told.text("grant.mint")
    assert "secrets" not in told.one("grant.mint")["text"]


async def test_a_namespace_that_did_not_opt_in(tenant: Tenant, broker: BrokerProcess) -> None:
    """The label is what the broker's policies ask for."""
    await _registered(tenant, broker)
    where = f"/api/v1/namespaces/{tenant.namespace}"
    await tenant.cluster.request("PATCH", where, {"metadata": {"labels": {"tokenbroker.dev/clients": "false"}}})
    told = await _ask(tenant)

    assert "client.namespace" in told.problems
    assert f"kubectl label namespace {tenant.namespace} tokenbroker.dev/clients=enabled" in told.text(
        "client.namespace"
    )


async def test_a_condition_is_explained(tenant: Tenant, broker: BrokerProcess) -> None:
    """What the broker says, what it means, and the line that mends it."""
    await _registered(tenant, broker)
    await tenant.patch("web", {"suspend": True})
    await tenant.until_reason("web", "Suspended")
    told = await _ask(tenant)

    assert told.problems == {"client.Ready"}
    assert "The client is suspended" in told.text("client.Ready")
    assert f"tokenbroker client resume {tenant.namespace}/web" in told.text("client.Ready")


async def test_a_condition_with_a_code_is_explained_by_its_documentation(tenant: Tenant, broker: BrokerProcess) -> None:
    """What docs/errors.md says about service_account_missing."""
    assert broker.url
    await _opted_in(tenant)
    await tenant.allow_minting("web")
    await tenant.client("web", {"serviceAccount": {"name": "web"}})
    await tenant.until_reason("web", "ServiceAccountMissing")
    told = await _ask(tenant)

    assert "The granted account does not exist." in told.text("client.Authorized")


async def test_who_may_ask_nothing_is_told_so(tenant: Tenant, broker: BrokerProcess) -> None:
    """Who may look at TokenClients only, cannot tell the rest."""
    await _registered(tenant, broker)
    await bound_token(tenant.cluster, tenant.namespace, "looker", "looker")
    role = {"kind": "ClusterRole", "name": "tokenbroker-tokenclients-view", "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": "looker", "namespace": tenant.namespace}
    body = {"metadata": {"name": "looker"}, "roleRef": role, "subjects": [subject]}
    await tenant.cluster.request("POST", f"{_RBAC}/namespaces/{tenant.namespace}/rolebindings", body)
    looker = tenant.cluster.kubeconfig_for(await tenant.cluster.token_for(tenant.namespace, "looker"))
    told = await _ask(tenant, "--can", "get pods", user=looker)

    assert told.code == 0, told.stderr
    unclear = {it["id"] for it in told.findings if it["state"] == "cannot tell"}
    assert unclear == {"client.namespace", "broker.policies", "grant.account", "grant.mint", "access.can"}


async def test_namespace_admins_see_what_the_broker_may(tenant: Tenant, broker: BrokerProcess) -> None:
    """LocalSubjectAccessReview answers whom SubjectAccessReview does not."""
    await _registered(tenant, broker)
    await tenant.account("boss", cluster_role="admin")
    boss = tenant.cluster.kubeconfig_for(await tenant.cluster.token_for(tenant.namespace, "boss"))
    told = await _ask(tenant, "--can", f"create configmaps -n {tenant.namespace}", user=boss)

    assert told.state("grant.mint") == "ok"
    assert told.problems == {"access.can"}
    assert "kubectl create rolebinding web-create" in told.text("access.can")


async def test_a_request_is_found_and_explained(tenant: Tenant, broker: BrokerProcess) -> None:
    """The audit record says whose request it was and why it was refused; then its client is looked at."""
    await _registered(tenant, broker)
    client = await tenant.client("late", {"serviceAccount": {"name": "web"}}, suspend=True)
    await tenant.until_reason("late", "Suspended")
    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    asked = ("--request-id", reply.body["request_id"], "--audit-log")
    by_file = await doctor(tenant.cluster, *asked, str(broker.audit_file))
    line = next(it for it in broker.audit_file.read_text().splitlines() if asked[1] in it)
    piped = f'{line[:60]}\nnothing of {asked[1]}\n["{asked[1]}", {{}}]\n[pod/tokenbroker-1] {line}\n'
    by_pipe = await doctor(tenant.cluster, *asked, "-", stdin=piped)

    assert {"request.token.refused", "client.Ready"} <= by_file.problems
    assert "client_suspended" in by_file.text("request.token.refused")
    assert "`spec.suspend` is true." in by_file.text("request.token.refused")
    assert f"{tenant.namespace}/late" in by_file.text("client.exists")
    assert by_pipe.findings == by_file.findings


async def test_a_request_that_got_a_token(tenant: Tenant, broker: BrokerProcess) -> None:
    """It is told what was issued, and by which id the API server knows it."""
    client = await tenant.ready_client("web", "web")
    await _opted_in(tenant)
    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    identity = reply.body["request_id"]
    told = await doctor(tenant.cluster, "--request-id", identity, "--audit-log", str(broker.audit_file))
    record = next(it for it in broker.records(client.id) if it["request_id"] == identity)

    assert told.code == 0
    assert record["jti"] in told.text("request.token.issued")


async def test_a_request_of_which_nothing_is_known(tenant: Tenant, tmp_path: Path) -> None:
    """It cannot be told, and the ways to ask are checked."""
    log = tmp_path / "log"
    log.write_text(json.dumps({"request_id": "other"}) + "\n")
    told = await doctor(tenant.cluster, "--request-id", "r-1", "--audit-log", str(log))

    assert (told.code, told.state("request.found")) == (0, "cannot tell")
    for wrong in (("--request-id", "r-1"), ("--audit-log", "x"), ("--request-id", "r", "--audit-log", "/none")):
        assert (await doctor(tenant.cluster, *wrong)).code == 2
    assert (await doctor(tenant.cluster, "--client", "web")).code == 2


@pytest.mark.parametrize("code", ["never_heard_of", ""])
async def test_codes_of_another_release(tenant: Tenant, tmp_path: Path, code: str) -> None:
    """A code that is not known is repeated, and a line without one is only told."""
    log = tmp_path / "log"
    log.write_text(json.dumps({"request_id": "r-1", "event": "some.event", "reason": code}) + "\n")
    told = await doctor(tenant.cluster, "--request-id", "r-1", "--audit-log", str(log))

    assert told.state("request.some.event") == ("problem" if code else "ok")


async def test_the_audit_log_tells_whose_a_token_was_and_when_it_ended(tenant: Tenant, broker: BrokerProcess) -> None:
    """A token that its client gave up: who had it, since when it is refused, and how its client is now."""
    client = await tenant.ready_client("web", "web", revocation="Token")
    first, second = [(await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).body for _ in range(2)]
    gone = await broker.call("DELETE", f"/v1/tokens/{first['id']}", auth=client.auth)
    log = ("--audit-log", str(broker.audit_file))
    ended = await doctor(tenant.cluster, "--token-file", "-", *log, stdin=first["token"])
    living = await doctor(tenant.cluster, "--token-file", "-", *log, stdin=second["token"])

    assert gone.status == 204, gone.body
    assert f"the broker issued it to {client.id}, grant default" in ended.text("token.issued")
    assert "the broker ended it (by_client" in ended.text("token.ended")
    assert "as recorded: " in ended.text("token.anchor")
    assert ended.state("client.exists") == "ok"
    assert living.problems == set()


async def test_a_grant_that_was_ended_ends_its_tokens(tenant: Tenant, broker: BrokerProcess) -> None:
    """Records about a whole grant count for each of its tokens; those of other clients do not."""
    client = await tenant.ready_client("web", "web")
    other = await tenant.client("other", {"serviceAccount": {"name": "web"}})
    await tenant.until_reason("other", "Ready")
    kept = (await broker.call("POST", "/v1/tokens", {}, auth=other.auth)).body
    token = (await broker.call("POST", "/v1/tokens", {}, auth=client.auth)).body
    await tenant.patch("web", {"suspend": True})

    async def recorded() -> bool:
        return any(it["event"] == "token.revoked" for it in broker.records(client.id))

    await until(recorded, what="the broker has ended the grant's tokens")
    log = ("--audit-log", str(broker.audit_file))
    ended = await doctor(tenant.cluster, "--token-file", "-", *log, stdin=token["token"])
    living = await doctor(tenant.cluster, "--token-file", "-", *log, stdin=kept["token"])

    assert "token.ended" in ended.problems
    assert living.state("token.ended") == ""


async def test_a_token_that_the_audit_log_does_not_know(tenant: Tenant, tmp_path: Path) -> None:
    """It cannot be told whose it is; a log that nothing is looked for in is refused."""
    token = await bound_token(tenant.cluster, tenant.namespace, "web", "anchor")
    (tmp_path / "log").write_text("")
    told = await doctor(tenant.cluster, "--token-file", "-", "--audit-log", str(tmp_path / "log"), stdin=token)

    assert (told.code, told.state("token.issued")) == (0, "cannot tell")
