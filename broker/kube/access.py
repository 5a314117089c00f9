"""What an account may do, asked of the API server as that account itself.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-rules-review-v1/ and
self-subject-access-review-v1. Asked with a token of the account's own, the answers know all its groups, and the broker
needs no right to ask about anybody.
"""

from collections.abc import Mapping
from typing import Any

from broker.kube.answer import Answer, OversizedAnswerError, unavailable
from broker.kube.session import KubeSession
from broker.model.access import Action, Rules, read_review, unread_review
from broker.model.api_resources import DISCOVERY_TYPE, Catalogue, parse_catalogue
from broker.model.sensitive import Sensitive

REVIEWS = "/apis/authorization.k8s.io/v1"

MAX_REVIEW_BYTES = 1024 * 1024
"""How much of a review's answer is read: all ClusterRoles that Kubernetes brings along are a few percent of it."""


class KubeAccess:
    """Implements :class:`broker.services.verify.AccessReviews`."""

    def __init__(self, session: KubeSession) -> None:
        self._session = session

    async def rules(self, token: Sensitive, namespace: str) -> Rules:
        """Return the rules of the account whose token it is, in a namespace.

        Raises BrokerError: kubernetes_unavailable, kubernetes_timeout.
        """
        try:
            status = await self._review("SelfSubjectRulesReview", {"namespace": namespace}, token)
        except OversizedAnswerError:
            return unread_review(MAX_REVIEW_BYTES)
        return read_review(status)

    async def allowed(self, token: Sensitive, action: Action, namespace: str) -> bool:
        """Tell whether the account may do something. Raises BrokerError like :meth:`rules`."""
        status = await self._review("SelfSubjectAccessReview", action.attributes(namespace), token)
        return status.get("allowed") is True

    async def catalogue(self) -> Catalogue:
        """Return what the cluster serves. Raises BrokerError like :meth:`rules`."""
        documents = [await self._session.call("GET", path, accept=DISCOVERY_TYPE) for path in ("/api", "/apis")]
        for answer in documents:
            if not answer.ok:
                raise unavailable(f"discovery answered {answer.message()}", answer.retry_after)
        try:
            return parse_catalogue(*(answer.json() for answer in documents))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise unavailable("its discovery documents cannot be read") from None

    async def _review(self, kind: str, spec: Mapping[str, Any], token: Sensitive) -> Mapping[str, Any]:
        document = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        answer = await self._session.call(
            "POST",
            f"{REVIEWS}/{kind.lower()}s",
            document,
            repeatable=True,
            bearer=token,
            largest=MAX_REVIEW_BYTES,
        )
        return _status(answer, kind)


def _status(answer: Answer, kind: str) -> Mapping[str, Any]:
    if not answer.ok:
        raise unavailable(f"a {kind} answered {answer.message()}", answer.retry_after)
    document = answer.json()
    status = document.get("status") if isinstance(document, dict) else None
    if not isinstance(status, dict):
        raise unavailable(f"its answer to a {kind} is not complete")
    return status
