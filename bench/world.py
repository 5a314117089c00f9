"""The three ways to a token for one ServiceAccount, on one API server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import orjson

from bench.checks import Checker, Expected, decoded, signing_keys
from bench.errors import BenchError
from bench.vegeta import Target
from tests.support.broker import BrokerProcess, Registered, Tenant, basic
from tests.support.installed import install
from tests.support.lab import Lab

NAMESPACE, ACCOUNT, CLIENT, MINTER = "bench", "reader", "load", "openbao-minter"
ENGINE = "kubernetes-secrets"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to get a token, and what a right answer is."""

    target: Target
    expected: Expected


@dataclass(frozen=True, slots=True)
class World:
    """Running servers and the ways through them."""

    lab: Lab
    broker: BrokerProcess
    checker: Checker
    direct: Way
    brokered: Way
    openbao: Way

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        """Start all servers with one registered client, and end them on leaving."""
        async with Lab.start() as lab:
            await install(lab.cluster)
            async with BrokerProcess.start(lab, log_level="info") as broker:
                tenant = await Tenant.create(lab.cluster, NAMESPACE)
                client = await tenant.ready_client(CLIENT, ACCOUNT)
                claims = await _issued_claims(broker, client)
                _, keys = await lab.cluster.request("GET", "/openid/v1/jwks")
                yield cls(
                    lab,
                    broker,
                    Checker(signing_keys(keys)),
                    _direct(lab, broker, claims),
                    _brokered(broker, client, claims),
                    await _openbao(lab, claims),
                )


async def _issued_claims(broker: BrokerProcess, client: Registered) -> dict[str, Any]:
    reply = await broker.call("POST", "/v1/tokens", {}, auth=client.auth)
    if reply.status != 200:
        raise BenchError(f"the broker answered {reply.status}: {reply.body}")
    claims: dict[str, Any] = orjson.loads(decoded(reply.body["token"].split(".")[1]))
    return claims


def _direct(lab: Lab, broker: BrokerProcess, claims: dict[str, Any]) -> Way:
    """Return the call that the broker makes, byte for byte in its body, with the broker's own credential."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": claims["aud"],
            "expirationSeconds": claims["exp"] - claims["iat"],
            "boundObjectRef": {"apiVersion": "v1", "kind": "Secret"} | claims["kubernetes.io"]["secret"],
        },
    }
    token = (broker.folder / "token").read_text().strip()
    url = f"{lab.cluster.server}/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
    target = Target("direct", url, _json(f"Bearer {token}"), orjson.dumps(body), lab.cluster.ca_file)
    return Way(target, _expected(201, claims, ("status", "token")))


def _brokered(broker: BrokerProcess, client: Registered, claims: dict[str, Any]) -> Way:
    target = Target("broker", f"{broker.url}/v1/tokens", _json(basic(*client.auth)), b"{}")
    return Way(target, _expected(200, claims, ("token",)))


async def _openbao(lab: Lab, claims: dict[str, Any]) -> Way:
    await _let_openbao_mint(lab)
    authority = lab.cluster.ca_file.read_text()
    await _set_up(lab, f"sys/mounts/{ENGINE}", {"type": "kubernetes"})
    await _set_up(
        lab,
        f"{ENGINE}/config",
        {
            "kubernetes_host": lab.cluster.server,
            "kubernetes_ca_cert": authority,
            "service_account_jwt": await lab.cluster.token_for(NAMESPACE, MINTER, seconds=24 * 3600),
            "disable_local_ca_jwt": True,
        },
    )
    await _set_up(
        lab,
        f"{ENGINE}/roles/bench",
        {
            "service_account_name": ACCOUNT,
            "allowed_kubernetes_namespaces": [NAMESPACE],
            "token_default_ttl": claims["exp"] - claims["iat"],
            "token_default_audiences": claims["aud"],
        },
    )
    headers = {"X-Vault-Token": lab.vault.root_token, "Content-Type": "application/json"}
    body = orjson.dumps({"kubernetes_namespace": NAMESPACE})
    target = Target("openbao", f"{lab.vault.address}/v1/{ENGINE}/creds/bench", headers, body, lab.vault.ca_file)
    return Way(target, _expected(200, claims, ("data", "service_account_token")))


async def _let_openbao_mint(lab: Lab) -> None:
    await lab.cluster.apply(f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {MINTER}, namespace: {NAMESPACE}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {MINTER}, namespace: {NAMESPACE}}}
rules:
- {{apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [{ACCOUNT}], verbs: [create]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {MINTER}, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {MINTER}}}
subjects:
- {{kind: ServiceAccount, name: {MINTER}, namespace: {NAMESPACE}}}
""")


async def _set_up(lab: Lab, path: str, body: dict[str, Any]) -> None:
    status, answer = await lab.vault.api("POST", path, body)
    if status not in {200, 204}:
        raise BenchError(f"OpenBao answered {status} to {path}: {answer}")


def _expected(status: int, claims: dict[str, Any], keys: tuple[str, ...]) -> Expected:
    def extract(document: Any) -> str:
        for key in keys:
            document = document[key]
        return str(document)

    [audience] = claims["aud"]
    return Expected(status, extract, claims["sub"], audience)


def _json(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization, "Content-Type": "application/json"}
