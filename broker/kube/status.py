"""Statuses of TokenClients."""

from collections.abc import Mapping
from typing import Any

from broker.kube.answer import unavailable
from broker.kube.registry import resource_path
from broker.kube.session import KubeSession
from broker.ports import Registration


class KubeStatusWriter:
    """Writes through the status subresource; implements :class:`broker.ports.StatusWriter`."""

    def __init__(self, session: KubeSession) -> None:
        self._session = session

    async def write(self, registration: Registration, status: Mapping[str, Any], *, exactly: bool = False) -> None:
        """Replace the status of the very resource that was seen: the UID guards against a namesake."""
        path = f"{resource_path(registration.id)}/status"
        # A merge patch keeps keys that it does not name, so those that went are named as null.
        gone = dict.fromkeys(registration.status.keys() - status.keys())
        metadata = {"uid": registration.uid} | ({"resourceVersion": registration.resource_version} if exactly else {})
        body = {"metadata": metadata, "status": {**gone, **status}}
        answer = await self._session.call("PATCH", path, body, content_type="application/merge-patch+json")
        gone_too = {404} if exactly else {404, 409}  # deleted, or another one of that name
        if not answer.ok and answer.status not in gone_too:
            raise unavailable(f"writing a status answered {answer.message()}", answer.retry_after)
