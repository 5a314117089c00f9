"""Anchors: Secrets without data that tokens are bound to. Deleting one ends its tokens within seconds."""

import base64
import hashlib
from typing import Any

from broker.errors import BrokerError, Reason
from broker.kube.answer import Answer, unavailable
from broker.kube.session import KubeSession
from broker.model.client import Client
from broker.model.token import Anchor

ANCHOR_TYPE = "tokenbroker.dev/anchor"
NAME_PREFIX = "tokenbroker-anchor-"


class KubeAnchors:
    """Makes anchors by POST and never reads one; implements :class:`broker.ports.Anchors` and its ``AnchorNames``.

    The broker may not get or list Secrets. Where an anchor exists already, after a restart, its UID is learned
    from the answer to a dry-run DELETE, which admission (deploy/base/policies) refuses for anything but
    anchors, and only the broker can make those.
    """

    def __init__(self, session: KubeSession) -> None:
        self._session = session

    async def ensure(self, client: Client, purpose: str) -> Anchor:
        """Return the anchor for a purpose, made if need be; see :meth:`broker.ports.Anchors.ensure`."""
        name = anchor_name(client.uid, purpose)
        namespace = client.id.namespace
        answer = await self._session.call("POST", _path(namespace), _manifest(client, name))
        if answer.status == 409:  # noqa: PLR2004 - 409 AlreadyExists
            answer = await self._session.call("DELETE", f"{_path(namespace)}/{name}?dryRun=All")
            return Anchor(name, _uid(answer, client, ("details", "uid")))
        return Anchor(name, _uid(answer, client, ("metadata", "uid")))

    def name_of(self, client: Client, purpose: str) -> str:
        """Return an anchor's name; see :class:`broker.ports.AnchorNames`."""
        return anchor_name(client.uid, purpose)

    async def delete(self, namespace: str, anchor: Anchor) -> None:
        """Delete exactly this anchor; see :meth:`broker.ports.Anchors.delete`."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": anchor.uid}}
        answer = await self._session.call("DELETE", f"{_path(namespace)}/{anchor.name}", options)
        if not answer.ok and answer.status not in {404, 409}:  # gone, or another one of that name
            raise _refusal(answer, namespace)


def anchor_name(client_uid: str, purpose: str) -> str:
    """Return the name of a client's anchor: a hash, so that nobody can prepare one for a client to come."""
    digest = hashlib.sha256(f"{client_uid}/{purpose}".encode()).digest()[:15]
    return NAME_PREFIX + base64.b32encode(digest).decode().lower()


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets"


def _manifest(client: Client, name: str) -> dict[str, Any]:
    owner = {
        "apiVersion": "tokenbroker.dev/v1alpha1",
        "kind": "TokenClient",
        "name": client.id.name,
        "uid": client.uid,
    }
    labels = {
        "app.kubernetes.io/managed-by": "tokenbroker",
        "tokenbroker.dev/client": client.id.name,
        "tokenbroker.dev/anchor": "grant",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": ANCHOR_TYPE,
        "immutable": True,
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
    }


def _uid(answer: Answer, client: Client, path: tuple[str, str]) -> str:
    if not answer.ok:
        raise _refusal(answer, client.id.namespace)
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
