"""What ends or hands out tokens while the broker is killed, at a real API server, and what must be there afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp

from broker.cli.client.command import remove as remove_command
from broker.cli.client.revoke_all import revoke_all as revoke_all_command
from broker.kube.finalizers import FINALIZER
from broker.kube.token_requests import unverified_claims
from broker.model.anchor import grant_anchor, trial_anchor, vault_anchor
from broker.model.former_grants import FormerGrant
from broker.model.limits import OPT_IN
from tests.support.accounts import Account, rule
from tests.support.broker import BrokerProcess, Registered, Tenant
from tests.support.killing_proxy import KillingProxy
from tests.support.lab import Lab
from tests.support.locks import Rule
from tests.support.processes import until
from tests.support.revocations import ALL, GRANTS, SINGLE, TOGETHER, VAULT, in_vault, until_served

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LIMITS = [{"namespace_labels": {"tier": "lab"}, "max_ttl": "30m"}]
BOTH = ((SINGLE, "reader"), (TOGETHER, "reader"))
DENYING = [GRANTS[0] | {"expect": {"deny": ["delete configmaps"]}}, GRANTS[1]]


@dataclass(frozen=True, slots=True)
class Bench:
    """A cluster without a broker, and a proxy to start some behind."""

    lab: Lab
    proxy: KillingProxy

    def broker(self, name: str, **overrides: Any) -> Any:
        """Return a broker to start behind the proxy, which waits for no Lease."""
        server = {"server": self.proxy.url, "ca_file": str(self.proxy.ca_file)}
        token = {"token_file": str(self.lab.processes.folder / name / "token")}
        return BrokerProcess.start(self.lab, name, kubernetes=server | token, **overrides)

    async def anchors(self, namespace: str = "") -> list[dict[str, Any]]:
        """Return the anchors of a namespace, or all."""
        where = f"/api/v1/namespaces/{namespace}" if namespace else "/api/v1"
        path = f"{where}/secrets?fieldSelector=type%3Dtokenbroker.dev/anchor"
        return list((await self.lab.cluster.request("GET", path))[1]["items"])

    async def works(self, token: str) -> bool:
        """Tell whether the API server knows whose a token is."""
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        return (await self.lab.cluster.request("POST", path, {}, token=token))[0] == 201


@dataclass(frozen=True, slots=True)
class Point:
    """A flow, and before which of its calls the broker is killed; 0: it is not."""

    flow: str
    at: int

    @property
    def namespace(self) -> str:
        """A namespace of its own."""
        return f"killed-{self.flow.replace('_', '-')}-{self.at}"


@dataclass(slots=True)
class Held:
    """A client, and the tokens that it had before anything was done to it, by their kind."""

    point: Point
    bench: Bench
    tenant: Tenant
    client: Registered
    uid: str
    tokens: dict[str, str]
    token_id: str
    acting: "asyncio.Future[None]" = field(init=False)

    async def patch(self, **spec: Any) -> None:
        """Change the client."""
        await self.tenant.patch("web", spec)

    async def delete(self, **options: str) -> None:
        """Delete the client."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        await self.tenant.cluster.request("DELETE", f"{self.tenant.path}/web", body)

    async def command(self, command: Callable[..., None]) -> None:
        """Run a command of the command line about the client, with its user's own rights."""
        kubeconfig = str(self.bench.lab.cluster.kubeconfig)
        await asyncio.to_thread(command, namespace=self.tenant.namespace, kubeconfig=kubeconfig)

    async def label(self, name: str, value: str) -> None:
        """Label the namespace."""
        body = {"metadata": {"labels": {name: value}}}
        await self.tenant.cluster.request("PATCH", f"/api/v1/namespaces/{self.tenant.namespace}", body)

    async def give(self, right: Rule) -> None:
        """Give the account a right, and wait until the API server knows."""
        token = await self.tenant.cluster.token_for(self.tenant.namespace, "reader")
        await Account(self.tenant, "reader", token).grant("more", right)


Act = Callable[[Held, BrokerProcess], Awaitable[None]]


async def nothing(held: Held, broker: BrokerProcess) -> None:
    """Prepare nothing."""


async def suspend(held: Held, _: BrokerProcess) -> None:
    """Suspend the client."""
    await held.patch(suspend=True)


async def soon_over(held: Held, _: BrokerProcess) -> None:
    """Let ``spec.notAfter`` be near, and wait until the broker has taken note and the time has nearly come."""
    end = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
    await held.patch(notAfter=end.isoformat().replace("+00:00", "Z"))
    await asyncio.sleep((end - datetime.now(UTC)).total_seconds() - 0.2)


async def remove(held: Held, _: BrokerProcess) -> None:
    """Run ``tokenbroker client remove``, which waits until the broker has let the client go."""
    await held.command(partial(remove_command, "web", yes=True))


async def orphan(held: Held, _: BrokerProcess) -> None:
    """Delete it in the way that leaves what it owns."""
    await held.delete(propagationPolicy="Orphan")


async def remove_a_grant(held: Held, _: BrokerProcess) -> None:
    """Take a grant away."""
    await held.patch(grants=GRANTS[:1])


async def change_the_account(held: Held, _: BrokerProcess) -> None:
    """Let a grant be for another account."""
    await held.patch(grants=[GRANTS[0], GRANTS[1] | {"serviceAccount": {"name": "other"}}])


async def revoke_by_id(held: Held, broker: BrokerProcess) -> None:
    """DELETE /v1/tokens/{id}, asked again where no answer came."""
    await broker.call("DELETE", f"/v1/tokens/{held.token_id}", auth=held.client.auth)


async def revoke_by_token(held: Held, broker: BrokerProcess) -> None:
    """POST /oauth2/revoke (RFC 7009)."""
    form = f"token={quote(held.tokens[SINGLE])}".encode()
    await broker.call("POST", "/oauth2/revoke", auth=held.client.auth, data=form, headers=FORM)


def revoke_all(*, now: bool) -> Act:
    """Return ``tokenbroker client revoke-all``, which fails where the broker does not move on."""

    async def act(held: Held, _: BrokerProcess) -> None:
        await held.command(partial(revoke_all_command, "web", now=now))

    return act


async def may_what_is_denied(held: Held, _: BrokerProcess) -> None:
    """Give the account a right that ``expect.deny`` names."""
    await held.give(rule("delete", "configmaps"))


async def strong(held: Held, _: BrokerProcess) -> None:
    """Give the account a right by which it could get credentials of its own."""
    await held.give(rule("get", "secrets"))


async def look(held: Held, _: BrokerProcess) -> None:
    """Let the broker look at the account now, not at some time within ten minutes."""
    await held.patch(owner="somebody else")


async def limit(held: Held, _: BrokerProcess) -> None:
    """Take the operator's leave away by a label that the configuration names."""
    await held.label("tier", "lab")


async def opt_out(held: Held, _: BrokerProcess) -> None:
    """Take the namespace's opt-in away."""
    await held.label(OPT_IN, "disabled")


async def issue(held: Held, broker: BrokerProcess) -> None:
    """Ask for the first token of a bucket."""
    await broker.call("POST", "/v1/tokens", {"grant": SINGLE}, auth=held.client.auth)


@dataclass(frozen=True, slots=True)
class Flow:
    """What is done after ``before``, which tokens live on, and for which grants and accounts there are anchors then.

    ``again``: who got no answer has to ask once more. ``ready``: that is what the status says where there are any
    anchors. ``gone``: the TokenClient is, too.
    """

    act: Act
    alive: frozenset[str] = frozenset()
    anchors: tuple[tuple[str, str], ...] = ()
    before: Act = nothing
    grants: tuple[dict[str, Any], ...] = tuple(GRANTS)
    held: frozenset[str] = ALL
    again: bool = False
    ready: bool = True
    gone: bool = False


_OTHERS = frozenset({TOGETHER, VAULT})
FLOWS = {
    "suspend": Flow(suspend),
    "not_after": Flow(nothing, before=soon_over),
    "remove": Flow(remove, gone=True),
    "orphan": Flow(orphan, gone=True),
    "remove_a_grant": Flow(remove_a_grant, frozenset({SINGLE}), BOTH[:1]),
    "change_the_account": Flow(change_the_account, frozenset({SINGLE}), (*BOTH[:1], (TOGETHER, "other"))),
    "revoke_by_id": Flow(revoke_by_id, _OTHERS, BOTH, again=True),
    "revoke_by_token": Flow(revoke_by_token, _OTHERS, BOTH, again=True),
    "revoke_all": Flow(revoke_all(now=False), frozenset({VAULT}), BOTH),
    "revoke_all_now": Flow(revoke_all(now=True), anchors=BOTH),
    "denied": Flow(look, _OTHERS, BOTH[1:], may_what_is_denied, tuple(DENYING), ready=False),
    "strong": Flow(look, before=strong),
    "limit": Flow(limit),
    "opt_out": Flow(opt_out),
    "issue": Flow(issue, _OTHERS, BOTH, held=_OTHERS),
}


async def prepared(bench: Bench, point: Point) -> Tenant:
    """Make a namespace with the accounts of a flow."""
    tenant = await Tenant.create(bench.lab.cluster, point.namespace)
    accounts = {"reader", *(account for _, account in FLOWS[point.flow].anchors)}
    await asyncio.gather(*(tenant.account(account) for account in accounts))
    return tenant


async def holding(bench: Bench, broker: BrokerProcess, tenant: Tenant, point: Point) -> Held:
    """Register a client, and hand tokens out."""
    flow = FLOWS[point.flow]
    client = await tenant.client("web", *flow.grants)
    await until_served(bench.lab, broker, tenant, "web")
    _, resource = await bench.lab.cluster.request("GET", f"{tenant.path}/web")
    asked = sorted(flow.held - {VAULT})
    replies = {name: await broker.call("POST", "/v1/tokens", {"grant": name}, auth=client.auth) for name in asked}
    tokens = {name: str(reply.body["token"]) for name, reply in replies.items()}
    kept = await in_vault(bench.lab, client.id)
    assert kept is not None
    token_id = str(replies[SINGLE].body["id"]) if SINGLE in replies else ""
    return Held(point, bench, tenant, client, resource["metadata"]["uid"], tokens | {VAULT: kept}, token_id)


async def act(held: Held, broker: BrokerProcess) -> None:
    """Do what the flow is for; a broker that is killed meanwhile does not answer."""
    with suppress(aiohttp.ClientError):
        await FLOWS[held.point.flow].act(held, broker)


async def settled(broker: BrokerProcess, held: Held) -> None:
    """Wait until a broker has brought a flow to its end, and delete the client then."""
    flow = FLOWS[held.point.flow]
    await held.acting
    if flow.again:
        await flow.act(held, broker)
    found = [""]

    async def clean() -> bool:
        found[:] = [await unclean(held)]
        return not found[0]

    try:
        await until(clean, what=f"{held.point} has come to its end")
    except RuntimeError as error:
        raise AssertionError(f"{held.point}: {found[0]}") from error
    wanted = {grant for grant, _ in flow.anchors}

    async def served() -> bool:
        asked = {
            name: broker.call("POST", "/v1/tokens", {"grant": name}, auth=held.client.auth)
            for name in (SINGLE, TOGETHER)
        }
        return {name for name, call in asked.items() if (await call).status == 200} == wanted

    await until(served, what=f"{held.point}: tokens are handed out for {wanted}")
    await held.delete()


async def unclean(held: Held) -> str:
    """Return what is not as it should be, or nothing.

    A token ends with its anchor, so the anchors tell at once what the API server does when it forgets, after 10 s.
    """
    flow, found = FLOWS[held.point.flow], await held.bench.anchors(held.tenant.namespace)
    uids = {it["metadata"]["uid"] for it in found}
    owners = {owner["uid"] for it in found for owner in it["metadata"].get("ownerReferences", ())}
    status, answer = await held.bench.lab.cluster.request("GET", f"{held.tenant.path}/web")
    resource: dict[str, Any] = {"metadata": {}} if status == 404 else answer
    kept = await in_vault(held.bench.lab, held.client.id)
    facts = {
        "alive": ({name for name, token in held.tokens.items() if anchor_uid(token) in uids}, flow.alive),
        "at the top": ({it["metadata"]["name"] for it in found if not _is_below(it)}, _tops(held)),
        "without an owner": (owners - uids - {held.uid}, set()),
        "gone": (status == 404, flow.gone),
        "finalizers": (resource["metadata"].get("finalizers"), None if flow.gone else [FINALIZER]),
        "shown": (_shown(resource), None if flow.gone else (flow.ready and bool(flow.anchors))),
        "good in Vault": (
            kept is not None and anchor_uid(kept) in uids,
            any(name == TOGETHER for name, _ in flow.anchors),
        ),
    }
    return "; ".join(f"{what}: {is_} instead of {should}" for what, (is_, should) in facts.items() if is_ != should)


def anchor_uid(token: str) -> str:
    """Return the UID of the Secret that a token is bound to."""
    return str(unverified_claims(token)["kubernetes.io"]["secret"]["uid"])


def _shown(resource: dict[str, Any]) -> bool | None:
    """Return whether a client is ready by its status, or None where that is not about what it is now."""
    status, generation = resource.get("status", {}), resource["metadata"].get("generation")
    conditions = {one["type"]: one["status"] == "True" for one in status.get("conditions", ())}
    return conditions.get("Ready") if status.get("observedGeneration") == generation else None


def _is_below(anchor: dict[str, Any]) -> bool:
    return anchor["metadata"]["labels"]["tokenbroker.dev/anchor"] in {"bucket", "token", "version"}


def _tops(held: Held) -> set[str]:
    """Return the names of the anchors at the top that should be there."""
    names = set()
    for grant in FLOWS[held.point.flow].anchors:
        kinds = (grant_anchor, trial_anchor, *((vault_anchor,) if grant[0] == TOGETHER else ()))
        names |= {kind(held.uid, FormerGrant(*grant)).name for kind in kinds}
    return names
