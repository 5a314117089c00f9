"""The broker's finalizer on TokenClients.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/

Without it, ``kubectl delete --cascade=orphan`` would leave anchors behind, and with them tokens that work on.
"""

from collections.abc import Sequence
from dataclasses import replace

from broker.kube.answer import unavailable
from broker.kube.registry import Written, resource_path
from broker.kube.session import KubeSession
from broker.ports import Registration

FINALIZER = "tokenbroker.dev/anchors"


class KubeFinalizers:
    """Changes ``metadata.finalizers`` and nothing else; implements :class:`broker.ports.Finalizers`.

    Admission (deploy/base/policies) holds the broker to that. ``written`` is told of what was put on.
    """

    def __init__(self, session: KubeSession, written: Written) -> None:
        self._session = session
        self._written = written

    async def put(self, registration: Registration) -> Registration:
        """Put the finalizer on, where it is not there yet and there is a resource to put it on.

        See :meth:`broker.ports.Finalizers.put`.
        """
        if not registration.resource_version or FINALIZER in registration.finalizers:
            return registration
        now = await self._write(registration, (*registration.finalizers, FINALIZER))
        if now is not registration:
            self._written(registration, now)
        return now

    async def release(self, registration: Registration) -> None:
        """Take the finalizer off."""
        if FINALIZER in registration.finalizers:
            await self._write(registration, [one for one in registration.finalizers if one != FINALIZER])

    async def _write(self, registration: Registration, finalizers: Sequence[str]) -> Registration:
        # The version is named, so that nobody else's finalizer gets lost.
        metadata = {
            "uid": registration.uid,
            "resourceVersion": registration.resource_version,
            "finalizers": list(finalizers),
        }
        answer = await self._session.call(
            "PATCH",
            resource_path(registration.id),
            {"metadata": metadata},
            content_type="application/merge-patch+json",
        )
        if answer.status == 404:  # noqa: PLR2004 - it is gone
            return registration
        if not answer.ok:
            raise unavailable(f"changing a TokenClient's finalizers answered {answer.message()}", answer.retry_after)
        version = str(answer.json().get("metadata", {}).get("resourceVersion", ""))
        return replace(registration, finalizers=tuple(finalizers), resource_version=version)
