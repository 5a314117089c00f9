"""Statuses of TokenClients."""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from broker.kube.answer import Answer, unavailable
from broker.kube.registry import Written, resource_path
from broker.kube.session import KubeSession
from broker.ports import Registration
from broker.registration.kept_status import KeptStatus


class KubeStatusWriter:
    """Writes through the status subresource; implements :class:`broker.ports.StatusWriter`.

    ``written`` is told of each write, long before the watch is: else the next one would go over what is not there.
    """

    def __init__(self, session: KubeSession, written: Written) -> None:
        self._session = session
        self._written = written

    async def write(self, registration: Registration, status: Mapping[str, Any]) -> bool:
        """Replace the status of the very resource that was seen: the UID guards against a namesake.

        The version guards against all that was not seen, another leader's word as well. Sources:
        https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-resource-versions and
        :meth:`broker.ports.StatusWriter.write`.
        """
        path = f"{resource_path(registration.id)}/status"
        # A merge patch keeps keys that it does not name, so those that went are named as null.
        gone = dict.fromkeys(registration.status.keys() - status.keys())
        metadata = {"uid": registration.uid, "resourceVersion": registration.resource_version}
        body = {"metadata": metadata, "status": {**gone, **status}}
        answer = await self._session.call("PATCH", path, body, content_type="application/merge-patch+json")
        if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
            return False
        if not answer.ok:
            raise unavailable(f"writing a status answered {answer.message()}", answer.retry_after)
        version, kept = _read(answer)
        self._written(registration, replace(registration, status=kept, resource_version=version))
        return True


def _read(answer: Answer) -> tuple[str, KeptStatus]:
    try:
        document = answer.json()
        return document["metadata"]["resourceVersion"], KeptStatus(document["status"])
    except (KeyError, TypeError):
        raise unavailable("its answer about a status is not complete") from None
