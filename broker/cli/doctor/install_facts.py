"""Finds out how the broker is installed, with the user's own rights."""

from http import HTTPStatus

from broker.cli import impersonation
from broker.cli.cluster import Cluster
from broker.cli.doctor import settings
from broker.cli.doctor.objects import message
from broker.cli.doctor.policies import Found
from broker.cli.doctor.schema import NAME
from broker.cli.doctor.settings import Settings
from broker.cli.manifests import BrokerAccount, Manifest
from broker.model.account import account_user
from broker.model.policies import SECRETS, TOKENS

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}"
CANARY = "tokenbroker-canary"


async def look(cluster: Cluster, where: str) -> tuple[Manifest | None, str]:
    """Return an object, or None where there is none, and why it cannot be told."""
    answer = await cluster.ask("GET", where)
    if answer.status == HTTPStatus.OK:
        return answer.document, ""
    return None, "" if answer.status == HTTPStatus.NOT_FOUND else message(answer)


async def crd(cluster: Cluster) -> tuple[Manifest | None, str]:
    """Look for the CustomResourceDefinition."""
    return await look(cluster, _CRD)


async def policy(cluster: Cluster, name: str) -> Found:
    """Look for a policy and its binding."""
    found, refusal = await look(cluster, f"{_ADMISSION}/validatingadmissionpolicies/{name}")
    binding, also = await look(cluster, f"{_ADMISSION}/validatingadmissionpolicybindings/{name}")
    return Found(found, binding, refusal or also)


async def try_in_the_brokers_name(cluster: Cluster, broker: BrokerAccount) -> dict[str, tuple[int, str]]:
    """Try what two policies must refuse, as the broker itself does each minute; a dry run makes nothing.

    A token that is answered all the same is thrown away unread: its account has no rights.
    """
    where = f"/api/v1/namespaces/{broker.namespace}"
    secret: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokenbroker-doctor"}}
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    attempts = {
        SECRETS: (f"{where}/secrets", secret),
        TOKENS: (f"{where}/serviceaccounts/{CANARY}/token", token),
    }
    if cluster.impersonates:  # nobody acts in a name that he took for a third one
        return dict.fromkeys(attempts, (HTTPStatus.FORBIDDEN, "cannot impersonate twice"))
    headers = {impersonation.USER: account_user(broker.namespace, broker.name)}
    outcome = {}
    for name, (path, body) in attempts.items():
        answer = await cluster.ask("POST", path, body, query={"dryRun": "All"}, headers=headers)
        outcome[name] = answer.status, message(answer)
    return outcome


async def configuration(cluster: Cluster, broker: BrokerAccount) -> Settings:
    """Return the broker's configuration, or the defaults where it cannot be read."""
    deployment, _ = await look(cluster, f"/apis/apps/v1/namespaces/{broker.namespace}/deployments/tokenbroker")
    name = settings.config_map_name(deployment or {})
    found, _ = await look(cluster, f"/api/v1/namespaces/{broker.namespace}/configmaps/{name}") if name else (None, "")
    return settings.read(found or {})
