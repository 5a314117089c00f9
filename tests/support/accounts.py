"""Accounts with exactly the rights that a test gives them, and clients of theirs."""

import asyncio
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Self

from tests.support.broker import BrokerProcess, Registered, Reply, Tenant
from tests.support.cluster import Cluster
from tests.support.locks import RBAC, Rule
from tests.support.processes import until

GROUP = "rbac.authorization.k8s.io"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
ENDS_WITHIN = 15.0
"""The promise: seconds from a token's end to its refusal."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account that the broker may mint for. Its own token is the test's, not the broker's."""

    tenant: Tenant
    name: str
    token: str

    @classmethod
    async def create(cls, tenant: Tenant, name: str, *rules: Rule, everywhere: bool = False) -> Self:
        """Make one with these rules in its namespace, or in the whole cluster, and wait until they hold."""
        core = f"/api/v1/namespaces/{tenant.namespace}"
        await tenant.cluster.request("POST", f"{core}/serviceaccounts", {"metadata": {"name": name}})
        await tenant.allow_minting(name)
        account = cls(tenant, name, await tenant.cluster.token_for(tenant.namespace, name))
        if rules:
            await account.grant("rights", *rules, everywhere=everywhere)
        return account

    async def grant(
        self, title: str, *rules: Rule, everywhere: bool = False, group: str = "", wait: bool = True
    ) -> None:
        """Give the account, or a group that it is in, more rights, and wait until it has them, or is shown them."""
        path, kind, name = self._role(title, everywhere=everywhere)
        subject: dict[str, str] = {"kind": "ServiceAccount", "name": self.name, "namespace": self.tenant.namespace}
        if group:
            subject = {"kind": "Group", "name": group, "apiGroup": GROUP}
        role = {"metadata": {"name": name}, "rules": list(rules)}
        reference = {"kind": kind, "name": name, "apiGroup": GROUP}
        binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        await self.tenant.cluster.request("POST", f"{path}{kind.lower()}s", role)
        await self.tenant.cluster.request("POST", f"{path}{kind.lower()}bindings", binding)
        if not wait:
            await until(partial(self.shown, rules[-1]), what=f"{self.name} is shown {rules[-1]}")
            return
        for rule in rules:
            await until(partial(self.may, rule), what=f"{self.name} has {rule}")

    async def shown(self, rule: Rule) -> bool:
        """Tell whether the account is shown the resources of a rule, whether they reach anything or not."""
        body = {"spec": {"namespace": self.tenant.namespace}}
        _, answer = await self.tenant.cluster.request("POST", RULES, body, token=self.token)
        found = [
            (it["resources"], it["verbs"], it.get("resourceNames", [])) for it in answer["status"]["resourceRules"]
        ]
        return (rule["resources"], rule["verbs"], rule.get("resourceNames", [])) in found

    async def take(self, title: str, *, everywhere: bool = False) -> None:
        """Take rights away again."""
        path, kind, name = self._role(title, everywhere=everywhere)
        await self.tenant.cluster.request("DELETE", f"{path}{kind.lower()}bindings/{name}")

    async def may(self, rule: Rule) -> bool:
        """Tell whether the account has the first right of a rule, by the API server's word."""
        if "nonResourceURLs" in rule:
            asked = {"nonResourceAttributes": {"verb": rule["verbs"][0], "path": rule["nonResourceURLs"][0]}}
        else:
            resource, _, subresource = rule["resources"][0].partition("/")
            attributes = {
                "namespace": self.tenant.namespace,  # where a Namespace is decided on, too
                "verb": rule["verbs"][0],
                "group": rule["apiGroups"][0],
                "resource": resource,
                "subresource": subresource,
                "name": rule.get("resourceNames", [""])[0],
            }
            asked = {"resourceAttributes": attributes}
        _, answer = await self.tenant.cluster.request("POST", REVIEWS, {"spec": asked}, token=self.token)
        return bool(answer["status"]["allowed"])

    async def client(self, **grant: Any) -> Registered:
        """Register a client of the account, called like it."""
        return await self.tenant.client(self.name, {"serviceAccount": {"name": self.name}, **grant})

    async def touch(self, owner: str = "somebody") -> None:
        """Change the client's spec, so that the broker looks again now and not when its time has come."""
        await self.tenant.patch(self.name, {"owner": owner})

    async def anchors(self, *kinds: str) -> list[str]:
        """Return the names of the client's anchors, of these kinds or of all."""
        selector = f"labelSelector=tokenbroker.dev/client={self.name}"
        path = f"/api/v1/namespaces/{self.tenant.namespace}/secrets?{selector}"
        _, found = await self.tenant.cluster.request("GET", path)
        metadata = [one["metadata"] for one in found["items"]]
        return [one["name"] for one in metadata if not kinds or one["labels"]["tokenbroker.dev/anchor"] in kinds]

    async def until_without_anchors(self, *kinds: str) -> None:
        """Wait until there are none."""

        async def none() -> bool:
            return not await self.anchors(*kinds)

        await until(none, what=f"{self.name} has no anchors")

    async def grants(self) -> list[dict[str, Any]]:
        """Return what the client's status says of its grants."""
        _, resource = await self.tenant.cluster.request("GET", f"{self.tenant.path}/{self.name}")
        found: list[dict[str, Any]] = resource.get("status", {}).get("grants", [])
        return found

    async def events(self, reason: str) -> list[dict[str, Any]]:
        """Return the Events on the client with a reason."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.tenant.namespace}/events"
        _, found = await self.tenant.cluster.request("GET", path)
        return [one for one in found["items"] if one["reason"] == reason and one["regarding"]["name"] == self.name]

    async def until_condition(self, kind: str, status: str, reason: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until a condition says so, and return it."""

        async def said() -> bool:
            found = await self.tenant.condition(self.name, kind)
            return (found.get("status"), found.get("reason")) == (status, reason)

        await until(said, what=f"{self.name}: {kind} is {status}, {reason}", seconds=seconds)
        return await self.tenant.condition(self.name, kind)

    def _role(self, title: str, *, everywhere: bool) -> tuple[str, str, str]:
        if everywhere:
            return f"{RBAC}/", "ClusterRole", f"{self.tenant.namespace}-{self.name}-{title}"
        return f"{RBAC}/namespaces/{self.tenant.namespace}/", "Role", f"{self.name}-{title}"


def rule(verbs: str, resources: str, group: str = "", name: str = "") -> Rule:
    """Return a rule of a Role, written with commas."""
    made = {"apiGroups": [group], "resources": resources.split(","), "verbs": verbs.split(",")}
    return made | ({"resourceNames": [name]} if name else {})


async def ask(broker: BrokerProcess, client: Registered, **body: Any) -> Reply:
    """Ask for a token."""
    return await broker.call("POST", "/v1/tokens", body, auth=client.auth)


async def issued(broker: BrokerProcess, client: Registered, **body: Any) -> str:
    """Return a token that was handed out."""
    reply = await ask(broker, client, **body)
    assert reply.status == 200, reply.body
    return str(reply.body["token"])


async def until_issued(broker: BrokerProcess, client: Registered, **body: Any) -> str:
    """Wait until the client is served, and return its token."""
    tokens: list[str] = []

    async def served() -> bool:
        reply = await ask(broker, client, **body)
        tokens.extend([str(reply.body["token"])] if reply.status == HTTPStatus.OK else [])
        return bool(tokens)

    await until(served, what=f"{client.id} is served")
    return tokens[0]


async def until_refused(broker: BrokerProcess, client: Registered, code: str) -> Reply:
    """Wait until the client is refused for that reason, and return the answer."""
    replies: list[Reply] = []

    async def refused() -> bool:
        replies.append(await ask(broker, client))
        return bool(replies[-1].body.get("code") == code)

    await until(refused, what=f"{client.id} is refused: {code}")
    return replies[-1]


async def works(cluster: Cluster, token: str) -> bool:
    """Tell whether the API server takes a token."""
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    status, _ = await cluster.request("POST", path, {}, token=token)
    return status == 201


async def until_dead(cluster: Cluster, token: str, seconds: float = ENDS_WITHIN) -> float:
    """Wait until the API server refuses a token, and return how many seconds that took."""
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def dead() -> bool:
        return not await works(cluster, token)

    await until(dead, what="the token is refused", seconds=seconds)
    return loop.time() - started
