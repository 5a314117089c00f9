"""Whom an anchor belongs to: when its owner is deleted, the garbage collector deletes it, and its tokens end."""

from dataclasses import dataclass
from typing import Protocol

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, unavailable
from broker.kube.session import KubeSession
from broker.model.client import API_VERSION, Client


@dataclass(frozen=True, slots=True)
class Owner:
    """An object of the anchor's namespace, as an owner reference names it."""

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self) -> dict[str, str]:
        """Return the owner reference."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid}


class Owners(Protocol):
    """Finds the owner of a client's anchors."""

    async def owner(self, client: Client, account: str) -> Owner:
        """Return the owner of the anchors for tokens of a ServiceAccount. Raises BrokerError where it is not found."""


class ClientOwners:
    """TokenClients own their anchors."""

    async def owner(self, client: Client, account: str) -> Owner:  # noqa: ARG002 - the other kind needs it
        """Return the TokenClient itself."""
        return Owner(API_VERSION, "TokenClient", client.id.name, client.uid)


class AccountOwners:
    """ServiceAccounts own the anchors of clients that stand in files: there is no resource that could."""

    def __init__(self, session: KubeSession) -> None:
        self._session = session

    async def owner(self, client: Client, account: str) -> Owner:
        """Return the account.

        Raises BrokerError: service_account_missing, broker_not_authorized, kubernetes_unavailable,
        kubernetes_timeout.
        """
        namespace = client.id.namespace
        answer = await self._session.call("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}")
        if not answer.ok:
            raise _refusal(answer, namespace, account)
        uid = answer.json().get("metadata", {}).get("uid")
        if not isinstance(uid, str) or not uid:
            raise unavailable("its answer about a ServiceAccount carries no uid")
        return Owner("v1", "ServiceAccount", account, uid)


def _refusal(answer: Answer, namespace: str, account: str) -> BrokerError:
    if answer.status == 404:  # noqa: PLR2004 - 404 Not Found
        return BrokerError(
            Reason.SERVICE_ACCOUNT_MISSING,
            "The service account of this grant does not exist.",
            operator_detail=(
                f"ServiceAccount {account} does not exist in {namespace}: "
                f"kubectl create serviceaccount {account} -n {namespace}"
            ),
        )
    if answer.status == 403:  # noqa: PLR2004 - 403 Forbidden
        return BrokerError(
            Reason.BROKER_NOT_AUTHORIZED,
            "The broker may not prepare this grant at the moment; its operators have been told.",
            operator_detail=(
                f"The broker may not get ServiceAccount {account} in {namespace}, which owns the anchors of clients "
                f"that stand in files: apply a Role with get on serviceaccounts for resourceNames: [{account}] "
                f"(deploy/overlays/tenant). The API server said: {answer.message()}"
            ),
            retry_after=30,
        )
    return unavailable(f"it answered {answer.status} about a ServiceAccount", answer.retry_after)
