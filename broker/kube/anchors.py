"""Anchors: Secrets without data that tokens are bound to. Deleting one ends its tokens within seconds."""

import asyncio
import math
from typing import Any

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, timed_out, unavailable
from broker.kube.owners import ClientOwners, Owner, Owners
from broker.kube.session import KubeSession
from broker.model.anchor import ANCHOR_LABEL, ANCHOR_TYPE, AnchorId
from broker.model.client import Client
from broker.model.token import Anchor


class KubeAnchors:
    """Makes anchors by POST and never reads one; implements :class:`broker.ports.Anchors`.

    The broker may not get or list Secrets. Where an anchor exists already, after a restart, its UID is learned
    from the answer to a dry-run DELETE, which admission (deploy/base/policies) refuses for anything but anchors,
    and only the broker can make those. What makes an anchor at the top of a chain, which is the leader's alone to do,
    is given up after ``within`` seconds: it must not be sent when another replica leads already.
    """

    def __init__(self, session: KubeSession, owners: Owners | None = None, *, within: float = math.inf) -> None:
        self._session = session
        self._owners = owners or ClientOwners()
        self._within = within

    async def ensure(self, client: Client, which: AnchorId, parent: Anchor | None = None) -> Anchor:
        """Return an anchor, made if need be; see :meth:`broker.ports.Anchors.ensure`."""
        if parent is not None:
            return await self._ensure(client, which, _owned_by(parent))
        try:
            async with asyncio.timeout(self._within):
                return await self._ensure(client, which, await self._owners.owner(client, which.account))
        except TimeoutError:
            raise timed_out(self._within) from None

    async def _ensure(self, client: Client, which: AnchorId, owner: Owner) -> Anchor:
        manifest = _manifest(client, which, owner)
        answer = await self._session.call("POST", _path(client.id.namespace), manifest)
        if answer.status != 409:  # noqa: PLR2004 - 409 AlreadyExists
            return Anchor(which.name, _uid(answer, client.id.namespace, ("metadata", "uid")))
        found = await self.find(client, which)
        if found is None:
            raise unavailable("an anchor went while it was looked up")
        return found

    async def find(self, client: Client, which: AnchorId) -> Anchor | None:
        """Return an anchor that exists, or None; see :meth:`broker.ports.Anchors.find`."""
        answer = await self._session.call("DELETE", f"{_path(client.id.namespace)}/{which.name}?dryRun=All")
        if _is_gone(answer):
            return None
        return Anchor(which.name, _uid(answer, client.id.namespace, ("details", "uid")))

    async def delete(self, namespace: str, name: str, uid: str | None = None) -> bool:
        """Delete an anchor; see :meth:`broker.ports.Anchors.delete`."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body = options if uid is None else options | {"preconditions": {"uid": uid}}
        answer = await self._session.call("DELETE", f"{_path(namespace)}/{name}", body)
        another = uid is not None and answer.status == 409  # noqa: PLR2004 - 409 Conflict: another one of that name
        if not answer.ok and not _is_gone(answer) and not another:
            raise _refusal(answer, namespace)
        return answer.ok


def _is_gone(answer: Answer) -> bool:
    return answer.status == 404 and answer.detail_kind() == "secrets"  # noqa: PLR2004 - 404 Not Found


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets"


def _owned_by(parent: Anchor) -> Owner:
    return Owner("v1", "Secret", parent.name, parent.uid)


def _manifest(client: Client, which: AnchorId, owner: Owner) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/managed-by": "tokenbroker",
        "tokenbroker.dev/client": client.id.name,
        ANCHOR_LABEL: which.kind.value,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": ANCHOR_TYPE,
        "immutable": True,
        "metadata": {"name": which.name, "labels": labels, "ownerReferences": [owner.reference()]},
    }


def _uid(answer: Answer, namespace: str, path: tuple[str, str]) -> str:
    if not answer.ok:
        raise _refusal(answer, namespace)
    uid = answer.json().get(path[0], {}).get(path[1])
    if not isinstance(uid, str) or not uid:
        raise unavailable("its answer about an anchor carries no uid")
    return uid


def _refusal(answer: Answer, namespace: str) -> BrokerError:
    if answer.status in {403, 404, 422}:
        return BrokerError(
            Reason.BROKER_NOT_AUTHORIZED,
            "The broker may not prepare this grant at the moment; its operators have been told.",
            operator_detail=(
                f"The broker may not create or delete its anchors (Secrets of type {ANCHOR_TYPE}) in {namespace}: "
                f"apply deploy/client-namespace there, or tokenbroker client add. "
                f"The API server said: {answer.message()}"
            ),
            retry_after=30,
        )
    return unavailable(f"it answered {answer.status} about an anchor", answer.retry_after)
